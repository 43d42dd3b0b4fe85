"""UDF for machines: what each of its paths takes and answers. See docs/charts.md for people."""

from oracle_hub.charts.operations import (
    BOOLEAN,
    INTEGER,
    NUMBER,
    SECONDS,
    STRING,
    Answer,
    Named,
    Operation,
    Parameter,
    Schema,
    Text,
    array,
    constant,
    record,
    reference,
    under,
)
from oracle_hub.charts.resolutions import RESOLUTIONS
from oracle_hub.charts.udf import PREFIXES

NAMES = {PREFIXES[0]: "udf", PREFIXES[1]: "shim"}
"""Beginning of the names of operations, by prefix."""

_CODE: Schema = {"enum": [*(one.value for one in RESOLUTIONS), "D", "W", "M"]}
_STATE: Schema = {"enum": ["live", "degraded", "none"]}
_STRINGS, _NUMBERS = array(STRING), array(NUMBER)
_COLOR: Schema = {"type": "string", "pattern": "^#[0-9a-f]{6}$"}


def _or_error(schema: Schema) -> Schema:
    """The protocol tells errors with status 200."""
    return {"oneOf": [schema, reference("UdfError")]}


_CONFIG = record(
    {
        "supported_resolutions": array(_CODE),
        "supports_group_request": BOOLEAN,
        "supports_marks": BOOLEAN,
        "supports_search": BOOLEAN,
        "supports_timescale_marks": BOOLEAN,
        "supports_time": BOOLEAN,
        "exchanges": array(record({"value": STRING, "name": STRING, "desc": STRING})),
        "symbols_types": array(record({"name": STRING, "value": STRING})),
    }
)
_SYMBOL = record(
    {
        **dict.fromkeys(("name", "full_name", "ticker", "description", "type"), STRING),
        "session": constant("24x7"),
        "timezone": constant("Etc/UTC"),
        **dict.fromkeys(("exchange", "listed_exchange"), STRING),
        "format": constant("price"),
        "minmov": constant(1),
        "pricescale": {"type": "integer", "minimum": 1},
        **dict.fromkeys(("has_seconds", "has_intraday", "has_daily", "has_weekly_and_monthly"), constant(True)),
        **{f"{unit}_multipliers": _STRINGS for unit in ("seconds", "intraday", "daily", "weekly", "monthly")},
        "has_empty_bars": constant(False),
        "has_no_volume": constant(True),
        "visible_plots_set": constant("ohlc"),
        "supported_resolutions": array(_CODE),
        "data_status": constant("streaming"),
        "currency_code": {"type": ["string", "null"]},
    }
)
_COLUMNS: dict[str, Schema] = {
    **dict.fromkeys(("symbol", "ticker", "description", "base_currency", "type"), STRING),
    "currency": {"type": ["string", "null"]},
    "typespecs": _STRINGS,
    **dict.fromkeys(("pricescale", "minmovement", "minmovement2", "pointvalue"), INTEGER),
    **dict.fromkeys(("fractional", "bar_fillgaps"), BOOLEAN),
    **dict.fromkeys(("root", "root_description", "expiration"), constant(None)),
    **dict.fromkeys(("exchange_listed", "exchange_traded", "timezone", "session_regular"), STRING),
    **dict.fromkeys(("has_intraday", "has_no_volume", "has_daily", "has_weekly_and_monthly"), BOOLEAN),
    **{f"{unit}_multipliers": _STRINGS for unit in ("intraday", "weekly", "monthly")},
    "supported_resolutions": array(_CODE),
    **dict.fromkeys(("bar_source", "bar_transform"), STRING),
}
_SYMBOL_INFO = record(
    {
        "s": constant("ok"),
        **{
            spelling: array(schema)
            for key, schema in _COLUMNS.items()
            for spelling in dict.fromkeys((key, key.replace("_", "-")))
        },
    }
)
_HISTORY: Schema = {
    "oneOf": [
        record({"s": constant("ok"), "t": array(SECONDS), **dict.fromkeys(("o", "h", "l", "c", "v"), _NUMBERS)}),
        record({"s": constant("no_data"), "nextTime": SECONDS}, optional=("nextTime",)),
        reference("UdfError"),
    ]
}
_VALUES = record(
    {
        "lp": NUMBER,
        **dict.fromkeys(("short_name", "original_name", "description", "exchange"), STRING),
        "state": {"enum": ["live", "degraded"]},
        "source": {"type": ["string", "null"]},
        "rule": STRING,
        "valid_until_us": {"type": ["integer", "null"]},
        "lp_time": SECONDS,
        **dict.fromkeys(("open_price", "high_price", "low_price", "prev_close_price", "ch", "chp"), NUMBER),
    },
    optional=("open_price", "high_price", "low_price", "prev_close_price", "ch", "chp"),
)
_QUOTE: Schema = {
    "oneOf": [
        record({"s": constant("ok"), "n": STRING, "v": _VALUES}),
        record({"s": constant("error"), "n": STRING, "errmsg": STRING, "v": record({})}),
    ]
}
_MARKS = record(
    {
        "id": _STRINGS,
        "time": array(SECONDS),
        "color": array(_COLOR),
        "text": _STRINGS,
        "label": array({"enum": ["L", "D", "N"]}),
        "labelFontColor": array(_COLOR),
        "minSize": array(INTEGER),
    }
)
_TIMESCALE_MARK = record({"id": STRING, "time": SECONDS, "color": _COLOR, "label": STRING, "tooltip": _STRINGS})
_LINE: Schema = {
    "description": "A price; that there is none any more; or that the connection lives.",
    "oneOf": [
        record({"id": STRING, "p": NUMBER, "t": SECONDS, "f": constant("t"), "s": constant(0)}),
        record({"f": constant("n"), "symbol": STRING, "state": constant("none"), "reason": STRING, "t": SECONDS}),
        record({"T": SECONDS}),
    ],
}

SCHEMAS: dict[str, Schema] = {
    "UdfError": record({"s": constant("error"), "errmsg": STRING}),
    "UdfConfig": _CONFIG,
    "UdfSymbol": _or_error(_SYMBOL),
    "UdfSymbolInfo": _or_error(_SYMBOL_INFO),
    "UdfGroups": record({"s": constant("ok"), "d": record({"groups": array(record({"id": STRING}))})}),
    "UdfFound": _or_error(
        array(
            record(dict.fromkeys(("symbol", "full_name", "description", "exchange", "ticker", "type"), STRING)),
        )
    ),
    "UdfHistory": _HISTORY,
    "UdfQuotes": _or_error(record({"s": constant("ok"), "d": array(_QUOTE)})),
    "UdfMarks": _or_error(_MARKS),
    "UdfTimescaleMarks": _or_error(array(_TIMESCALE_MARK)),
    "UdfLine": _LINE,
}

_SYMBOL_ASKED = Parameter("symbol", "query", "As in Crypto.SOL/USD, SOL/USD, SOLUSD.", STRING, required=True)
_RESOLUTION = Parameter("resolution", "query", "Minutes, or with S, D, W, M.", _CODE, required=True)
_FROM = Parameter("from", "query", "Unix seconds, inclusive.", INTEGER, required=True)
_TO = Parameter("to", "query", "Unix seconds, exclusive.", INTEGER, required=True)
_RANGE = (_SYMBOL_ASKED, _RESOLUTION, _FROM, _TO)
_COUNTBACK = Parameter("countback", "query", "So many before `to`, and `from` is not needed.", INTEGER)
_BUSY: dict[int, Answer] = {503: Named("UdfError")}

_OPERATIONS = (
    Operation("/config", "config", "what there is.", {200: Named("UdfConfig")}),
    Operation("/symbols", "symbols", "one symbol.", {200: Named("UdfSymbol")}, (_SYMBOL_ASKED,)),
    Operation(
        "/symbol_info",
        "symbol_info",
        "every symbol, as columns.",
        {200: Named("UdfSymbolInfo")},
        (Parameter("group", "query", "The one that groups tells.", STRING),),
    ),
    Operation("/groups", "groups", "the groups of symbols.", {200: Named("UdfGroups")}),
    Operation(
        "/search",
        "search",
        "symbols by a part of their name, the nearest first.",
        {200: Named("UdfFound")},
        (
            Parameter("query", "query", "A part of a name or description.", STRING),
            Parameter("type", "query", "As in crypto; all without it.", STRING),
            Parameter("exchange", "query", "All without it.", STRING),
            Parameter("limit", "query", "So many at most.", INTEGER),
        ),
    ),
    Operation(
        "/history",
        "history",
        "bars as columns.",
        {200: Named("UdfHistory"), **_BUSY},
        (_SYMBOL_ASKED, _RESOLUTION, _FROM._replace(required=False), _TO, _COUNTBACK),
    ),
    Operation("/time", "time", "the hub's clock in seconds.", {200: Text("text/plain")}),
    Operation(
        "/quotes",
        "quotes",
        "prices of now.",
        {200: Named("UdfQuotes")},
        (Parameter("symbols", "query", "Names with commas between.", STRING, required=True),),
    ),
    Operation("/marks", "marks", "changes of state, on bars.", {200: Named("UdfMarks"), **_BUSY}, _RANGE),
    Operation(
        "/timescale_marks",
        "timescale_marks",
        "where a feed went degraded or lost its price.",
        {200: Named("UdfTimescaleMarks"), **_BUSY},
        _RANGE,
    ),
    Operation(
        "/streaming",
        "streaming",
        "prices as lines of JSON, without end.",
        {200: Text("application/x-ndjson", "UdfLine"), 429: Named("UdfError"), **_BUSY},
    ),
)
OPERATIONS: tuple[Operation, ...] = tuple(
    one for prefix in PREFIXES for one in under(prefix, NAMES[prefix], "UDF", _OPERATIONS)
)
