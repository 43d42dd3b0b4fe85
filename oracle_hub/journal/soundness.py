"""Whether a closed segment is whole: every record's CRC, without decoding any."""

from pathlib import Path
from zlib import crc32

from oracle_hub.journal.reader import read_segment
from oracle_hub.journal.records import CRC, OVERHEAD_BYTES, PREFIX
from oracle_hub.journal.segments import decode_header, header_length


def check_segment(path: Path) -> None:
    """Look at every record of a plain segment. A torn tail, which a crash leaves, is no damage.

    Raises:
        JournalError: damaged; with file and offset.
        OSError: it can't be read.
    """
    data = path.read_bytes()
    length = header_length(data, str(path))
    if length is None or len(data) < length:
        return
    _, seed = decode_header(data[:length], str(path))
    at, view = length, memoryview(data)
    while at + OVERHEAD_BYTES <= len(data):
        size = PREFIX.unpack_from(data, at)[0] + OVERHEAD_BYTES
        end = at + size
        if end > len(data) or crc32(view[at : end - CRC.size], seed) != CRC.unpack_from(data, end - CRC.size)[0]:
            for _ in read_segment(path):  # says whether records go on behind it, and where
                pass
            return
        at = end
