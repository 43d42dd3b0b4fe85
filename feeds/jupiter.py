"""Jupiter Perpetuals' ``Custody`` and ``Pool``: where the exchange says which oracle accounts it prices by.

Layouts follow the public interface descriptions of 2025-08 and 2026 and mainnet accounts. The custody grew at its
end several times, so that an older dump is shorter: what it lacks is None. Little-endian, packed.
"""

from struct import Struct
from typing import Any, ClassVar, Self

import msgspec

from feeds.addresses import PERPS
from feeds.layout import UNSET_KEY, AccountLayout, check_size, key_or_none, refuse_head, struct_fields
from oracle_hub.errors import DecodeError

PROGRAM = PERPS
LIVE_SIZE = 2000
"""Bytes that both kinds of account take on mainnet."""


class OracleParams(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """The Pyth push account that custody still names, from before the Doves oracles."""

    oracle_account: bytes = UNSET_KEY
    oracle_type: int = 2
    """0 none, 1 test, 2 Pyth."""
    buffer: int = 50
    max_price_age_sec: int = 5


class Pricing(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """Fees, leverage, and the most that may be long and short."""

    trade_impact_fee_scalar: int = 0
    buffer: int = 0
    swap_spread: int = 0
    max_leverage: int = 0
    max_global_long_sizes: int = 0
    max_global_short_sizes: int = 0


class Permissions(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """What may be done with the custody's token."""

    allow_swap: bool = True
    allow_add_liquidity: bool = True
    allow_remove_liquidity: bool = True
    allow_increase_position: bool = True
    allow_decrease_position: bool = True
    allow_collateral_withdrawal: bool = True
    allow_liquidate_position: bool = True


class Assets(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """What the custody holds, in the token's own units; USD figures have six decimals."""

    fees_reserves: int = 0
    owned: int = 0
    locked: int = 0
    guaranteed_usd: int = 0
    global_short_sizes: int = 0
    global_short_average_prices: int = 0


class FundingRateState(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """Accumulated interest."""

    cumulative_interest_rate: int = 0
    last_update: int = 0
    hourly_funding_dbps: int = 0


class JumpRateState(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """The interest curve."""

    min_rate_bps: int = 0
    max_rate_bps: int = 0
    target_rate_bps: int = 0
    target_utilization_rate: int = 0


class PriceImpactBuffer(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """Open interest by minute, and the fee on an imbalance."""

    open_interest: tuple[int, ...] = (0,) * 60
    """60 buckets."""
    last_updated: int = 0
    fee_factor: int = 0
    exponent: float = 1.0
    delta_imbalance_threshold_decimal: int = 0
    max_fee_bps: int = 0


class BorrowLendParameters(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """Limits of borrowing against the pool's token. One name is misspelt in the program itself."""

    borrows_limit_in_bps: int = 0
    maintainance_margin_bps: int = 0
    protocol_fee_bps: int = 0
    liquidation_margin: int = 0
    liquidation_fee_bps: int = 0


_BASE = Struct("<8s32s32s32sB?32sBQI6Q7?Q6Q16sqQBB")  # to offset 296, where the layout of 2024 ended
_LIMITS = Struct("<3Q")  # @296
_KEY = Struct("<32s")  # @320 and @384
_JUMP = Struct("<4Q")  # @352
_IMPACT = Struct("<60qqQfQQ")  # @416
_BORROW = Struct("<5Q16sqQ16s16s")  # @932
_BORROW_LIMIT = Struct("<Q")  # @1036
_INTEREST = Struct("<QQ")  # @1044
_STAKE = Struct("<3Q")  # @1060
_WITHDRAWALS = Struct("<?QQqQ")  # @1084, to 1117


def _u128(raw: bytes) -> int:
    return int.from_bytes(raw, "little")


def _le16(value: int) -> bytes:
    return value.to_bytes(16, "little")


class Custody(AccountLayout, frozen=True, gc=False, rename="camel", kw_only=True):
    """One token of the pool, and the oracle accounts that price it.

    Fields from ``increase_position_bps`` on are None where the account ends before them. The two Doves oracles are
    None also when they are set to zeros.
    """

    KIND: ClassVar[str] = "jupiter.custody"
    DISCRIMINATOR: ClassVar[bytes] = bytes.fromhex("01b830515d833f91")

    pool: bytes
    mint: bytes
    token_account: bytes = UNSET_KEY
    decimals: int = 0
    is_stable: bool = False
    oracle: OracleParams = OracleParams()
    pricing: Pricing = Pricing()
    permissions: Permissions = Permissions()
    target_ratio_bps: int = 0
    assets: Assets = Assets()
    funding_rate_state: FundingRateState = FundingRateState()
    bump: int = 0
    token_account_bump: int = 0
    increase_position_bps: int | None = 0
    decrease_position_bps: int | None = 0
    max_position_size_usd: int | None = 0
    doves_oracle: bytes | None = None
    """The old oracle: a Doves PriceFeed, Edge's own (offset 320)."""
    jump_rate_state: JumpRateState | None = JumpRateState()
    doves_ag_oracle: bytes | None = None
    """The new oracle: a Doves AgPriceFeed (offset 384), which dumps from before April 2025 lack."""
    price_impact_buffer: PriceImpactBuffer | None = PriceImpactBuffer()
    borrow_lend_parameters: BorrowLendParameters | None = BorrowLendParameters()
    borrows_funding_rate_state: FundingRateState | None = FundingRateState()
    debt: int | None = 0
    borrow_lend_interests_accured: int | None = 0
    borrow_limit_in_token_amount: int | None = 0
    min_interest_fee_bps: int | None = 0
    min_interest_fee_grace_period_seconds: int | None = 0
    total_staked_amount_lamports: int | None = 0
    max_total_staked_amount_lamports: int | None = 0
    external_swap_fee_multiplier_bps: int | None = 0
    disable_close_position_request: bool | None = False
    withdrawal_limit_token_amount: int | None = 0
    withdrawal_token_amount_accumulated: int | None = 0
    withdrawal_limit_last_reset_at: int | None = 0
    withdrawal_limit_interval_seconds: int | None = 0

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read an account of at least 296 bytes, of whatever age.

        Raises:
            DecodeError: another discriminator, or too short.
        """
        if len(data) < _BASE.size or data[:8] != cls.DISCRIMINATOR:
            refuse_head(cls.KIND, data, cls.DISCRIMINATOR, _BASE.size)
        v = _BASE.unpack_from(data)
        later = _later_fields(data)
        return cls(
            pool=v[1],
            mint=v[2],
            token_account=v[3],
            decimals=v[4],
            is_stable=v[5],
            oracle=OracleParams(*v[6:10]),
            pricing=Pricing(*v[10:16]),
            permissions=Permissions(*v[16:23]),
            target_ratio_bps=v[23],
            assets=Assets(*v[24:30]),
            funding_rate_state=FundingRateState(_u128(v[30]), v[31], v[32]),
            bump=v[33],
            token_account_bump=v[34],
            **later,
        )

    def encode(self) -> bytes:
        """The account as it lies on the chain: 2000 bytes, or fewer for one that ends before its None fields."""
        f, o = self.funding_rate_state, self.oracle
        head = _BASE.pack(
            self.DISCRIMINATOR,
            self.pool,
            self.mint,
            self.token_account,
            self.decimals,
            self.is_stable,
            *_values(o),
            *_values(self.pricing),
            *_values(self.permissions),
            self.target_ratio_bps,
            *_values(self.assets),
            _le16(f.cumulative_interest_rate),
            f.last_update,
            f.hourly_funding_dbps,
            self.bump,
            self.token_account_bump,
        )
        parts = _later_parts(self)
        if parts[-1] is not None:
            return (head + b"".join(part or UNSET_KEY for part in parts)).ljust(LIVE_SIZE, b"\0")
        while parts and parts[-1] is None:
            parts.pop()
        return head + b"".join(part or UNSET_KEY for part in parts)


_LATER: tuple[tuple[int, Struct, tuple[str, ...]], ...] = (
    (296, _LIMITS, ("increase_position_bps", "decrease_position_bps", "max_position_size_usd")),
    (320, _KEY, ("doves_oracle",)),
    (352, _JUMP, ("jump_rate_state",)),
    (384, _KEY, ("doves_ag_oracle",)),
    (416, _IMPACT, ("price_impact_buffer",)),
    (
        932,
        _BORROW,
        (
            "borrow_lend_parameters",
            "borrows_funding_rate_state",
            "debt",
            "borrow_lend_interests_accured",
        ),
    ),
    (1036, _BORROW_LIMIT, ("borrow_limit_in_token_amount",)),
    (1044, _INTEREST, ("min_interest_fee_bps", "min_interest_fee_grace_period_seconds")),
    (
        1060,
        _STAKE,
        ("total_staked_amount_lamports", "max_total_staked_amount_lamports", "external_swap_fee_multiplier_bps"),
    ),
    (
        1084,
        _WITHDRAWALS,
        (
            "disable_close_position_request",
            "withdrawal_limit_token_amount",
            "withdrawal_token_amount_accumulated",
            "withdrawal_limit_last_reset_at",
            "withdrawal_limit_interval_seconds",
        ),
    ),
)
"""Groups of fields in the order in which the program grew: offset, format, names."""


def _later_fields(data: bytes) -> dict[str, Any]:
    """Fields from offset 296 on; None for groups that the account does not hold whole."""
    later: dict[str, Any] = {}
    for offset, form, names in _LATER:
        if len(data) < offset + form.size:
            later.update(dict.fromkeys(names))
            continue
        v = form.unpack_from(data, offset)
        if form is _KEY:
            v = (key_or_none(v[0]),)
        elif form is _JUMP:
            v = (JumpRateState(*v),)
        elif form is _IMPACT:
            v = (PriceImpactBuffer(v[:60], *v[60:]),)
        elif form is _BORROW:
            rates = FundingRateState(_u128(v[5]), v[6], v[7])
            v = (BorrowLendParameters(*v[:5]), rates, _u128(v[8]), _u128(v[9]))
        later.update(zip(names, v, strict=True))
    return later


def _later_parts(custody: Custody) -> list[bytes | None]:
    """Bytes of the groups from offset 296 on; None for a group that is absent."""
    parts: list[bytes | None] = []
    for _, form, names in _LATER:
        v = [getattr(custody, name) for name in names]
        if v[0] is None:
            parts.append(None)
        elif form is _JUMP:
            parts.append(form.pack(*_values(v[0])))
        elif form is _IMPACT:
            buckets, *rest = _values(v[0])
            parts.append(form.pack(*buckets, *rest))
        elif form is _BORROW:
            rate, update, hourly = _values(v[1])
            parts.append(form.pack(*_values(v[0]), _le16(rate), update, hourly, _le16(v[2]), _le16(v[3])))
        else:
            parts.append(form.pack(*v))
    return parts


def _values(group: msgspec.Struct) -> tuple[Any, ...]:
    return msgspec.structs.astuple(group)


class Limit(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """Limits of the whole pool."""

    max_aum_usd: int = 0
    token_weightage_buffer_bps: int = 0
    buffer: int = 0


class Fees(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """Fees of the whole pool."""

    swap_multiplier: int = 0
    stable_swap_multiplier: int = 0
    add_remove_liquidity_bps: int = 0
    swap_bps: int = 0
    tax_bps: int = 0
    stable_swap_bps: int = 0
    stable_swap_tax_bps: int = 0
    liquidation_reward_bps: int = 0
    protocol_share_bps: int = 0


class PoolApr(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """What the pool earned lately."""

    last_updated: int = 0
    fee_apr_bps: int = 0
    realized_fee_usd: int = 0


class ParameterUpdateOracle(msgspec.Struct, frozen=True, gc=False):
    """Compressed secp256k1 key: the one that signs Doves feeds."""

    prefix: int = 2
    key: bytes = UNSET_KEY


_POOL_TAIL = Struct("<16s16s16sQ9QqQQqBBqB32sqQ?QQ")  # from aumUsd on


class Pool(AccountLayout, frozen=True, gc=False, rename="camel", kw_only=True):
    """The pool and its custodies. Name and list come first, so that every later offset depends on them."""

    KIND: ClassVar[str] = "jupiter.pool"
    DISCRIMINATOR: ClassVar[bytes] = bytes.fromhex("f19a6d0411b16dbc")

    name: str = "Pool"
    custodies: tuple[bytes, ...]
    aum_usd: int = 0
    limit: Limit = Limit()
    fees: Fees = Fees()
    pool_apr: PoolApr = PoolApr()
    max_request_execution_sec: int = 45
    bump: int = 0
    lp_token_bump: int = 0
    inception_time: int = 0
    parameter_update_oracle: ParameterUpdateOracle = ParameterUpdateOracle()
    aum_usd_updated_at: int = 0
    max_trigger_price_diff_bps: int = 0
    disable_close_position_request: bool = False
    max_lp_token_price_change_bps: int = 0
    aum_usd_refreshed_at_slot: int = 0

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read a pool.

        Raises:
            DecodeError: another discriminator, too short, or a name that is not UTF-8.
        """
        if len(data) < 16 or data[:8] != cls.DISCRIMINATOR:
            refuse_head(cls.KIND, data, cls.DISCRIMINATOR, 16)
        end = 12 + int.from_bytes(data[8:12], "little")
        check_size(cls.KIND, data, end + 4)
        try:
            name = data[12:end].decode()
        except UnicodeDecodeError:
            raise DecodeError(f"{cls.KIND}: offset 12: expected a name in UTF-8, found {data[12:end].hex()}") from None
        count, start = int.from_bytes(data[end : end + 4], "little"), end + 4
        tail = start + 32 * count
        check_size(cls.KIND, data, tail + _POOL_TAIL.size)
        v = _POOL_TAIL.unpack_from(data, tail)
        return cls(
            name=name,
            custodies=tuple(data[at : at + 32] for at in range(start, tail, 32)),
            aum_usd=_u128(v[0]),
            limit=Limit(_u128(v[1]), _u128(v[2]), v[3]),
            fees=Fees(*v[4:13]),
            pool_apr=PoolApr(*v[13:16]),
            max_request_execution_sec=v[16],
            bump=v[17],
            lp_token_bump=v[18],
            inception_time=v[19],
            parameter_update_oracle=ParameterUpdateOracle(v[20], v[21]),
            aum_usd_updated_at=v[22],
            max_trigger_price_diff_bps=v[23],
            disable_close_position_request=v[24],
            max_lp_token_price_change_bps=v[25],
            aum_usd_refreshed_at_slot=v[26],
        )

    def encode(self) -> bytes:
        """The account as it lies on the chain: 2000 bytes."""
        name = self.name.encode()
        head = self.DISCRIMINATOR + len(name).to_bytes(4, "little") + name
        head += len(self.custodies).to_bytes(4, "little") + b"".join(self.custodies)
        tail = _POOL_TAIL.pack(
            _le16(self.aum_usd),
            _le16(self.limit.max_aum_usd),
            _le16(self.limit.token_weightage_buffer_bps),
            self.limit.buffer,
            *_values(self.fees),
            *_values(self.pool_apr),
            self.max_request_execution_sec,
            self.bump,
            self.lp_token_bump,
            self.inception_time,
            *_values(self.parameter_update_oracle),
            self.aum_usd_updated_at,
            self.max_trigger_price_diff_bps,
            self.disable_close_position_request,
            self.max_lp_token_price_change_bps,
            self.aum_usd_refreshed_at_slot,
        )
        return (head + tail).ljust(LIVE_SIZE, b"\0")

    def fields(self) -> dict[str, object]:
        """Every field under its own name; the signing key in hex, since it is none of Solana's."""
        oracle = struct_fields(self.parameter_update_oracle, frozenset({"key"}))
        return super().fields() | {"parameterUpdateOracle": oracle}
