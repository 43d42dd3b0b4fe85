"""Every exception that oracle-hub raises on purpose.

Each message is one line for the person who has to act: what is wrong, where (config key, feed, file, offset) and
what to do. None of them ever carries a secret.

OracleHubError
├── ConfigError      a configuration that cannot be used
├── DecodeError      bytes that are not what they should be
├── PriceError       a price that cannot be represented
├── JournalError     a journal that cannot be read or written
├── StreamError      a subscriber's message that cannot be accepted
├── SourceError      a source or its transport that cannot be used
├── PipeError        bytes between hub and worker that are no message
├── IncidentError    an incident's script that cannot be played
├── NoAnswerError    a question that the hub did not answer in time
└── ChartsError      a chart that cannot be given
    └── StoreError   bars that cannot be read or written on disk
"""


class OracleHubError(Exception):
    """Root of all errors raised by oracle-hub; the command line prints its message and exits with 1."""


def in_words(error: Exception) -> str:
    """What went wrong, without the number and the path that the system puts beside it."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


class ConfigError(OracleHubError):
    """A configuration that cannot be used. The message names the key and what it accepts."""


class DecodeError(OracleHubError):
    """Bytes that do not follow their layout. The message names the layout, the offset and what was expected."""


class PriceError(OracleHubError):
    """A price that is not positive, or does not fit int64 at the feed's canonical exponent."""


class JournalError(OracleHubError):
    """A journal file that cannot be read or written. The message names file and offset."""


class StreamError(OracleHubError):
    """A subscriber's message that cannot be accepted.

    ``code`` is the machine-readable code sent in the ``error`` message.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class SourceError(OracleHubError):
    """A source or transport that cannot be used (wrong cluster, key refused, unknown name)."""


class PipeError(OracleHubError):
    """What came over the pipe between hub and worker is no message of it, or the other side is gone."""


class IncidentError(OracleHubError):
    """A script of an incident that cannot be played. The message names the file and the place in it."""


class NoAnswerError(OracleHubError):
    """A worker asked the hub and got no answer in time."""


class ChartsError(OracleHubError):
    """Something about charts that cannot be done: an unknown resolution, a history that cannot be imported."""


class StoreError(ChartsError):
    """Bars that cannot be read or written on disk: a full disk, a damaged file. The message names file and remedy.

    After a failed write nothing of it is kept, and what was held stays readable: write the same again later.
    """
