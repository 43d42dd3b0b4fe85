"""Tables of the store, and the rows that go in and out of them. ``docs/charts.md`` explains them."""

from typing import Any, TypeAlias

from oracle_hub.charts.bars import Bar
from oracle_hub.charts.resolutions import RESOLUTIONS, SECOND_US, Resolution

APPLICATION_ID = 0x4F484243  # "OHBC"
SCHEMA_VERSION = 1

Row: TypeAlias = tuple[Any, ...]

GAP_FLAG, IMPORTED_FLAG, MIXED_FLAG = 1, 2, 4

CODES: dict[Resolution, int] = {
    resolution: (resolution.length_us or 30 * 86_400 * SECOND_US) // SECOND_US for resolution in RESOLUTIONS
}
"""How a resolution is stored: its length in seconds (a month as 30 days)."""

# Columns of a key come first in their table: where one stands behind others, the quick_check of SQLite 3.40 calls the
# row damaged ("NULL value in ...") when it is not.
TABLES = (
    """CREATE TABLE names (
        id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE
    ) STRICT""",
    """CREATE TABLE bars (
        feed_id INTEGER NOT NULL, resolution INTEGER NOT NULL, start_s INTEGER NOT NULL,
        open INTEGER NOT NULL, high INTEGER NOT NULL, low INTEGER NOT NULL, close INTEGER NOT NULL,
        expo INTEGER NOT NULL, updates INTEGER NOT NULL, degraded_us INTEGER NOT NULL, none_us INTEGER NOT NULL,
        flags INTEGER NOT NULL, revision INTEGER NOT NULL,
        PRIMARY KEY (feed_id, resolution, start_s)
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE bar_revisions (
        feed_id INTEGER NOT NULL, resolution INTEGER NOT NULL, start_s INTEGER NOT NULL, revision INTEGER NOT NULL,
        open INTEGER NOT NULL, high INTEGER NOT NULL, low INTEGER NOT NULL, close INTEGER NOT NULL,
        expo INTEGER NOT NULL, updates INTEGER NOT NULL, degraded_us INTEGER NOT NULL, none_us INTEGER NOT NULL,
        flags INTEGER NOT NULL,
        PRIMARY KEY (feed_id, resolution, start_s, revision)
    ) STRICT, WITHOUT ROWID""",
    # Of a bar that somebody changed by hand without a new revision, what was recorded is kept: a rebuild can mend it.
    """CREATE TRIGGER keep_revision AFTER UPDATE ON bars BEGIN
        INSERT INTO bar_revisions VALUES (
            OLD.feed_id, OLD.resolution, OLD.start_s, OLD.revision, OLD.open, OLD.high, OLD.low, OLD.close, OLD.expo,
            OLD.updates, OLD.degraded_us, OLD.none_us, OLD.flags
        ) ON CONFLICT DO NOTHING;
    END""",
    """CREATE TABLE points (
        feed_id INTEGER NOT NULL, decided_us INTEGER NOT NULL, epoch INTEGER NOT NULL, seq INTEGER NOT NULL,
        instance_id INTEGER NOT NULL, state_id INTEGER NOT NULL,
        mantissa INTEGER, expo INTEGER NOT NULL, conf INTEGER,
        source_id INTEGER, rule_id INTEGER NOT NULL, reason_id INTEGER NOT NULL,
        publish_us INTEGER, valid_until_us INTEGER,
        PRIMARY KEY (feed_id, decided_us, epoch, seq)
    ) STRICT, WITHOUT ROWID""",
    "CREATE INDEX points_by_publish ON points (feed_id, publish_us) WHERE publish_us IS NOT NULL",
    """CREATE TABLE marks (
        feed_id INTEGER NOT NULL, at_us INTEGER NOT NULL, state_id INTEGER NOT NULL, before_id INTEGER,
        reason_id INTEGER NOT NULL, source_id INTEGER, rule_id INTEGER NOT NULL,
        PRIMARY KEY (feed_id, at_us, state_id)
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE gaps (
        from_us INTEGER NOT NULL, to_us INTEGER NOT NULL, reason TEXT NOT NULL, PRIMARY KEY (from_us, to_us)
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE position (
        id INTEGER PRIMARY KEY CHECK (id = 1), instance TEXT, epoch INTEGER, seq INTEGER, watermark_us INTEGER
    ) STRICT""",
    "INSERT INTO position VALUES (1, NULL, NULL, NULL, NULL)",
)

BAR_COLUMNS = "start_s, open, high, low, close, expo, updates, degraded_us, none_us, flags, revision"

_CONTENT = ("open", "high", "low", "close", "expo", "updates", "degraded_us", "none_us", "flags")
_CHANGED = " OR ".join(f"bars.{column} <> excluded.{column}" for column in _CONTENT)
_PUT = f"""INSERT INTO bars VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0) ON CONFLICT DO UPDATE SET
    {", ".join(f"{column} = excluded.{column}" for column in _CONTENT)}, revision = bars.revision + 1
    WHERE ({_CHANGED})"""

PUT_RECORDED = f"{_PUT} AND NOT (excluded.flags & {GAP_FLAG} > bars.flags & {GAP_FLAG})"
"""A bar that differs from the stored one is its next revision; one with a gap does not replace one without, whoever
that is from."""
PUT_FOLDED = _PUT
"""What finer bars of both origins make (:mod:`oracle_hub.charts.seams`)."""
PUT_IMPORTED = f"{_PUT} AND bars.flags & {IMPORTED_FLAG}"
"""Somebody else's history replaces only such."""

PUT_POINT = f"INSERT OR IGNORE INTO points VALUES ({', '.join('?' * 14)})"
PUT_MARK = "INSERT OR IGNORE INTO marks VALUES (?, ?, ?, ?, ?, ?, ?)"
PUT_GAP = "INSERT OR IGNORE INTO gaps VALUES (?, ?, ?)"


# Of a name: a look into the trees for each, never a walk through them.
HAS_POINTS = "EXISTS (SELECT 1 FROM points WHERE feed_id = names.id)"
IS_FEED = f"(EXISTS (SELECT 1 FROM bars WHERE feed_id = names.id) OR {HAS_POINTS})"
NEWEST_POINT = "SELECT max(decided_us) FROM points WHERE feed_id = ?"


def bar_row(feed_id: int, bar: Bar, *, mixed: bool = False) -> Row:
    """Parameters of the statements that put bars."""
    return (
        feed_id,
        CODES[bar.resolution],
        bar.start_us // SECOND_US,
        bar.open,
        bar.high,
        bar.low,
        bar.close,
        bar.expo,
        bar.updates,
        bar.degraded_us,
        bar.none_us,
        (GAP_FLAG if bar.gap else 0) | (IMPORTED_FLAG if bar.imported else 0) | (MIXED_FLAG if mixed else 0),
    )


def bar_of(feed: str, resolution: Resolution, row: Row) -> Bar:
    """A bar from a row of :data:`BAR_COLUMNS`."""
    start_s, opening, high, low, close, expo, updates, degraded_us, none_us, flags, revision = row
    return Bar(
        feed,
        resolution,
        start_s * SECOND_US,
        opening,
        high,
        low,
        close,
        expo,
        updates,
        degraded_us,
        none_us,
        True,
        revision,
        bool(flags & IMPORTED_FLAG),
        bool(flags & GAP_FLAG),
    )
