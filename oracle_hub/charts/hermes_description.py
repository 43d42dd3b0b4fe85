"""The Hermes-compatible doors for machines: what each path takes and answers, and what goes over their websocket."""

from oracle_hub.charts.answers import ErrorAnswer
from oracle_hub.charts.hermes import PREFIXES
from oracle_hub.charts.hermes_shapes import ASSET_TYPES, EMITTER_CHAIN
from oracle_hub.charts.operations import (
    BOOLEAN,
    DIGITS,
    INTEGER,
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

NAMES = {"": "root", "/hermes": "hermes"}
"""Beginning of the names of operations, by prefix."""
CHANNELS = {prefix: f"{name}_ws" for prefix, name in NAMES.items()}
"""Names of the websockets, by prefix."""

_BASE64: Schema = {"type": "string", "contentEncoding": "base64"}
_ID: Schema = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_PRICE = record({"price": DIGITS, "conf": DIGITS, "expo": INTEGER, "publish_time": SECONDS})
_OURS = reference("Provenance")
_ENTRY = record(
    {
        "id": _ID,
        "price": _PRICE,
        "ema_price": _PRICE,
        "metadata": record({"slot": INTEGER, "proof_available_time": SECONDS, "prev_publish_time": SECONDS}),
        "oracle_hub": _OURS,
    }
)
_UPDATE = record(
    {
        "binary": record({"encoding": {"enum": ["hex", "base64"]}, "data": array(STRING)}),
        "parsed": array(_ENTRY),
        "oracle_hub": record(
            {"simulated": BOOLEAN, "absent": {"type": "object", "additionalProperties": STRING}},
        ),
    },
    optional=("parsed",),
)
_FEED = record(
    {
        "id": _ID,
        "price": _PRICE,
        "ema_price": _PRICE,
        "metadata": record(
            {
                "slot": INTEGER,
                "emitter_chain": constant(EMITTER_CHAIN),
                "price_service_receive_time": SECONDS,
                "prev_publish_time": SECONDS,
            }
        ),
        "vaa": _BASE64,
        "oracle_hub": _OURS,
    },
    optional=("metadata", "vaa"),
)
_METADATA = record(
    {
        "id": _ID,
        "attributes": record(
            {
                "asset_type": {"enum": sorted(ASSET_TYPES)},
                **dict.fromkeys(
                    (
                        *("base", "description", "display_symbol", "generic_symbol"),
                        *("quote_currency", "schedule", "symbol"),
                    ),
                    STRING,
                ),
            }
        ),
        "oracle_hub": record({"feed": STRING, "expo": INTEGER}),
    }
)
_OPTIONAL_US: Schema = {"type": ["integer", "null"]}
_READINESS = record(
    {
        "has_completed_recently": BOOLEAN,
        "is_not_behind": BOOLEAN,
        "is_metadata_loaded": BOOLEAN,
        "latest_completed_slot": _OPTIONAL_US,
        "latest_observed_slot": _OPTIONAL_US,
        "latest_completed_unix_timestamp": _OPTIONAL_US,
        "price_feeds_metadata_len": INTEGER,
    }
)
_RESPONSE: Schema = {
    "oneOf": [
        record({"type": constant("response"), "status": constant("success")}),
        record({"type": constant("response"), "status": constant("error"), "error": STRING}),
    ]
}
_ABSENT = record({"price_id": _ID, "feed": STRING, "reason": STRING})

SCHEMAS: dict[str, Schema] = {
    "HermesUpdate": _UPDATE,
    "HermesPriceFeed": _FEED,
    "HermesPriceFeeds": array(reference("HermesPriceFeed")),
    "HermesMetadata": array(_METADATA),
    "HermesIds": array(_ID),
    "HermesPaths": array(STRING),
    "HermesSigned": array(_BASE64),
    "HermesSignedThen": record({"vaa": _BASE64, "publishTime": SECONDS}),
    "HermesCcip": record({"data": {"type": "string", "pattern": "^0x([0-9a-f]{2})+$"}}),
    "HermesReadiness": _READINESS,
}

SERVER_MESSAGES: dict[str, Schema] = {
    "response": _RESPONSE,
    "price_update": record({"type": constant("price_update"), "price_feed": _FEED}),
    "price_absent": record({"type": constant("price_absent"), "id": _ID, "oracle_hub": _ABSENT}),
}
"""What the websocket tells, by type."""

_ANY_ID: Schema = {"type": "string", "pattern": "^(0[xX])?[0-9a-fA-F]{64}$"}
_IDS = Parameter("ids[]", "query", "Ids of Pyth; may be given again and again.", array(_ANY_ID), required=True)
_ONE_ID = Parameter("id", "query", "An id of Pyth.", _ANY_ID, required=True)
_SINCE = Parameter("publish_time", "query", "Unix seconds.", INTEGER, required=True)
_CCIP_DATA = Parameter("data", "query", "0x, 32 bytes of id, 8 of unix seconds.", STRING, required=True)
_VERBOSE = Parameter("verbose", "query", "With metadata.", BOOLEAN)
_BINARY = Parameter("binary", "query", "With the signed update, in `vaa`.", BOOLEAN)
_V1_OPTIONS = (_VERBOSE, _BINARY)
_V2_OPTIONS = (
    Parameter("encoding", "query", "Of the signed updates.", {"enum": ["hex", "base64"]}),
    Parameter("parsed", "query", "With `parsed`, as by default.", BOOLEAN),
    Parameter("ignore_invalid_price_ids", "query", "Leave out what has no price.", BOOLEAN),
)
_STREAM_OPTIONS = (
    Parameter("allow_unordered", "query", "Accepted; nothing ever comes out of order.", BOOLEAN),
    Parameter("benchmarks_only", "query", "The first price of each second only.", BOOLEAN),
)
_PLAIN = Text("text/plain")
_REFUSED: dict[int, Answer] = {400: _PLAIN, 404: _PLAIN}
_BUSY: dict[int, Answer] = {503: ErrorAnswer}

_V2 = (
    Operation("/live", "live", "the process answers.", {200: _PLAIN}),
    Operation("/ready", "ready", "whether the hub is heard.", {200: _PLAIN, 503: Named("HermesReadiness")}),
    Operation(
        "/v2/price_feeds",
        "price_feeds",
        "the feeds.",
        {200: Named("HermesMetadata"), 400: _PLAIN},
        (
            Parameter("query", "query", "A part of the symbol.", STRING),
            Parameter("asset_type", "query", "All without it.", {"enum": sorted(ASSET_TYPES)}),
        ),
    ),
    Operation(
        "/v2/updates/price/latest",
        "latest",
        "the prices that hold now.",
        {200: Named("HermesUpdate"), **_REFUSED, **_BUSY},
        (_IDS, *_V2_OPTIONS),
    ),
    Operation(
        "/v2/updates/price/{publish_time}",
        "at_time",
        "the first prices that were published at or after a time.",
        {200: Named("HermesUpdate"), **_REFUSED, **_BUSY},
        (Parameter("publish_time", "path", "Unix seconds.", INTEGER), _IDS, *_V2_OPTIONS),
    ),
    Operation(
        "/v2/updates/price/stream",
        "stream",
        "prices as server-sent events.",
        {200: Text("text/event-stream", "HermesUpdate"), **_REFUSED, 429: ErrorAnswer, **_BUSY},
        (_IDS, *_V2_OPTIONS, *_STREAM_OPTIONS),
    ),
    Operation("/v2/updates/publisher_stake_caps/latest", "stake_caps", "nothing: the hub knows none.", {404: _PLAIN}),
    Operation(
        "/v2/updates/twap/{window}/latest",
        "twap",
        "gone, as at Hermes.",
        {400: _PLAIN},
        (Parameter("window", "path", "Seconds.", INTEGER),),
    ),
)
_V1 = (
    Operation(
        "/api/latest_price_feeds",
        "latest_price_feeds",
        "the prices that hold now.",
        {200: Named("HermesPriceFeeds"), **_REFUSED, **_BUSY},
        (_IDS, *_V1_OPTIONS),
    ),
    Operation(
        "/api/latest_vaas",
        "latest_vaas",
        "signed updates of the prices that hold now.",
        {200: Named("HermesSigned"), **_REFUSED, **_BUSY},
        (_IDS,),
    ),
    Operation(
        "/api/get_price_feed",
        "get_price_feed",
        "the first price that was published at or after a time.",
        {200: Named("HermesPriceFeed"), **_REFUSED, **_BUSY},
        (_ONE_ID, _SINCE, *_V1_OPTIONS),
    ),
    Operation(
        "/api/get_vaa",
        "get_vaa",
        "the signed update of a price of the past.",
        {200: Named("HermesSignedThen"), **_REFUSED, **_BUSY},
        (_ONE_ID, _SINCE),
    ),
    Operation(
        "/api/get_vaa_ccip",
        "get_vaa_ccip",
        "the same by CCIP.",
        {200: Named("HermesCcip"), **_REFUSED, 502: _PLAIN, **_BUSY},
        (_CCIP_DATA,),
    ),
    Operation("/api/price_feed_ids", "price_feed_ids", "every id.", {200: Named("HermesIds")}),
)

OPERATIONS: tuple[Operation, ...] = (
    *(one for prefix in PREFIXES for one in under(prefix, NAMES[prefix], "Hermes", (*_V2, *_V1))),
    Operation("/hermes", "hermes", "Hermes: the paths.", {200: Named("HermesPaths")}),
    Operation("/hermes/", "hermes_index", "Hermes: the paths.", {200: Named("HermesPaths")}),
)
