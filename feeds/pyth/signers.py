"""The signers of Pyth's messages, and how a set hands over to the next.

Accumulator updates: Wormhole's guardians sign for one emitter, Pyth's own routers for another; numbers of sets begin
at 0 for each. A guardian set ends a day after the VAA that names the next one, as Wormhole's core contract has it. A
VAA of rotation is signed by the set before, so that a later set can be derived from an earlier one: :func:`rotated`.

Sources: Wormhole's guardian set upgrades 1 to 7 (each checked against the set before; a test does so again); for the
routers pyth-crosschain, ``contract_manager/src/core/base.ts`` and ``ProCompatibleProductionGuardianSetVaas.json``. The
day on which router set 1 took over is not public: it is no earlier than August 2026, and set 0 is taken to end with the
first public message of set 1 (both share three keys, so that a message may be right under either number).
Keys of Pyth Pro are those that signed public messages; the ones of test and staging are
known, too, and nobody vouches for them.
"""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

import msgspec

from feeds.pyth.vaa import check_signatures, decode_vaa
from feeds.signers import SignerSet, SignerSets
from oracle_hub.errors import ConfigError, DecodeError

ACCUMULATOR = "pyth.accumulator"
LAZER = "pyth.lazer"
GUARDIANS = "26:e101faedac5851e32b9b23b5f9411a8c2bac4aae3ed4dd7b811dd1a72ea4aa71"
ROUTERS = "26:507974686e6574507974686e6574507974686e6574507974686e657450797468"
SECP256K1 = "secp256k1"
ED25519 = "ed25519"
HANDOVER_S = 86_400
"""For so long a guardian set is accepted beside its successor."""
_GOVERNANCE = "1:" + "4".rjust(64, "0")
_UPGRADE = bytes(28) + b"Core" + b"\x02"

_SET_1 = """
58cc3ae5c097b213ce3c81979e1b9f9570746aa5 ff6cb952589bde862c25ef4392132fb9d4a42157
114de8460193bdf3a2fcf81f86a09765f4762fd1 107a0086b32d7a0977926a205131d8731d39cbeb
8c82b2fd82faed2711d59af0f2499d16e726f6b2 11b39756c042441be6d8650b69b54ebe715e2343
54ce5b4d348fb74b958e8966e2ec3dbd4958a7cd eb5f7389fa26941519f0863349c223b73a6ddee7
74a3bf913953d695260d88bc1aa25a4eee363ef0 000ac0076727b35fbea2dac28fee5ccb0fea768e
af45ced136b9d9e24903464ae889f5c8a723fc14 f93124b7c738843cbb89e864c862c38cddcccf95
d2cc37a4dc036a8d232b48f62cdd4731412f4890 da798f6896a3331f64b48c12d1d57fd9cbe70811
71aa1be1d36cafe3867910f99c09e347899c19c3 8192b6e7387ccd768277c17dab1b7a5027c0b3cf
178e21ad2e77ae06711549cfbb1f9c7a9d8096e8 5e1487f35515d02a92753504a8d75471b9f49edb
6fbebc898f403e4773e95feb15e80c9a99c8348d
"""
_CHANGES: tuple[tuple[int, dict[int, str]], ...] = (
    (1_628_094_930, {}),
    (1_651_416_474, {7: "66b9590e1c41e0b226937bf9217d1d67fd4e91f5"}),
    (1_673_870_400, {7: "15e7caf07c4e3dc8e7c469f92c8cd88fb8005a20"}),
    (1_713_281_400, {0: "5893b5a76c3f739645648885bdccc06cd70a3cd3"}),
    (
        1_773_580_004,
        {
            6: "938f104aeb5581293216ce97d771e0cb721221b1",
            14: "d1f64e26238811de5553c40f64af41ee1b6057cc",
            15: "43ac8f567a31e7850da532b361988bfe0d3ae11b",
        },
    ),
    (
        1_777_981_932,
        {
            5: "42579bffbcf4276e290ab8e4c162bd4052b97970",
            7: "18e41674ccf26329cd111406c1d05c6c80b23edc",
            8: "9d16870160e703324d057c3361c34c5befba2c34",
            15: "3f851ad586a47cef8d04748f33ab0d71395f06b4",
            17: "7899ceab1dc961dae9defdb7a4f521269a5448fc",
        },
    ),
    (
        1_783_669_263,
        {
            7: "f3ea0ad4ffb5a178ae4ebc21861651b25bdcbb91",
            14: "ae565927bb8db25cd8bf3e7bb663d70023e4ea78",
            18: "61d9800f9fcb4160fb0c6cf3a0902592bac2b434",
        },
    ),
)
"""When sets 1 to 7 took over (unix second of the upgrade's VAA), and which places changed hands."""
_ROUTERS = """
41534bb176e461a3fb30479400f210549ecce638 6502987b62f21cab7eb5ccd8f0173084b60d5b41
44a3e8f6a382412cf6bb90a3f8106e68977476c9
"""
_ROUTERS_0 = _ROUTERS + "d9d7d4529577864352c9a6539a48238fcd447052 1663a5a822336ece48559b1dfb1e93a017a7dac3"
_ROUTERS_1 = _ROUTERS + "13edc776d3063549fdb0702af182edc905a539d4 3af088854bb768065f4929e5bbdfa4cbb04c9af9"
_ROUTERS_1_BEGIN_S = 1_785_542_400  # 2026-08-01
_ROUTERS_0_END_S = 1_789_248_348  # 2026-09-12
_STAGING = "dcd37a16f42a7ddd377046c3d607e7227c1ef459 1098b22a55202594341052605228e3d896132f6a "
_STAGING_0 = _STAGING + "ff3b3ab7e07314359bd2469c2b1591478e398124"
_STAGING_1 = _STAGING + "5c80fbab4a56468ba48b97ff313fcaa96aba71f3"
_PRO_ED25519 = "80efc1f480c5615af3fb673d42287e993da9fbc3506b6e41dfa32950820c2e6c"
_PRO_SECP256K1 = "26fb61a864c758ae9fba027a96010480658385b9"
_PRO_STAGING_ED25519 = "f65210bee4fcf5b1cee1e537fabcfd95010297653b94af04d454fc473e94834f"
_PRO_TEST_ED25519 = "74313a6525edf99936aa1477e94c72bc5cc617b21745f5f03296f3154461f214"
_PRO_STAGING_SECP256K1 = "b8d50f0bae75bf6e03c104903d7c3afc4a6596da"


def two_thirds(size: int) -> int:
    """Signatures that Wormhole wants of a guardian set: more than two thirds."""
    return size * 2 // 3 + 1


def majority(size: int) -> int:
    """Signatures that Pyth wants of its routers: more than half."""
    return size // 2 + 1


def _keys(text: str) -> tuple[bytes, ...]:
    return tuple(map(bytes.fromhex, text.split()))


def _guardians() -> Iterator[SignerSet]:
    first = _keys(_SET_1)
    yield SignerSet(ACCUMULATOR, GUARDIANS, 0, first[:1], 1, 0, _CHANGES[0][0] + HANDOVER_S)
    keys = list(first)
    ends = [begin + HANDOVER_S for begin, _ in _CHANGES[1:]]
    for index, (begin, changed) in enumerate(_CHANGES, 1):
        for place, key in changed.items():
            keys[place] = bytes.fromhex(key)
        until = ends[index - 1] if index <= len(ends) else None
        yield SignerSet(ACCUMULATOR, GUARDIANS, index, tuple(keys), two_thirds(len(keys)), begin, until)


def _routers(index: int, text: str, from_s: int = 0, until_s: int | None = None) -> SignerSet:
    keys = _keys(text)
    return SignerSet(ACCUMULATOR, ROUTERS, index, keys, majority(len(keys)), from_s, until_s)


def _pro(group: str, index: int, key: str, *, proved: bool = True) -> SignerSet:
    """Pyth Pro's messages name no set: each key is one of its own, and any of them will do."""
    return SignerSet(LAZER, group, index, (bytes.fromhex(key),), 1, proved=proved)


PRODUCTION = SignerSets(
    [
        *_guardians(),
        _routers(0, _ROUTERS_0, until_s=_ROUTERS_0_END_S),
        _routers(1, _ROUTERS_1, _ROUTERS_1_BEGIN_S),
        _pro(ED25519, 0, _PRO_ED25519),
        _pro(SECP256K1, 0, _PRO_SECP256K1),
        _pro(ED25519, 1, _PRO_STAGING_ED25519, proved=False),
        _pro(ED25519, 2, _PRO_TEST_ED25519, proved=False),
        _pro(SECP256K1, 1, _PRO_STAGING_SECP256K1, proved=False),
    ]
)
STAGING = SignerSets(
    [
        _routers(0, _STAGING_0),
        _routers(1, _STAGING_1),
        _pro(ED25519, 0, _PRO_STAGING_ED25519),
        _pro(ED25519, 1, _PRO_TEST_ED25519),
        _pro(SECP256K1, 0, _PRO_STAGING_SECP256K1),
    ]
)
KNOWN: Mapping[str, SignerSets] = MappingProxyType({"production": PRODUCTION, "staging": STAGING})
"""Signer sets by name, as ``--signers`` and configuration name them."""


def rotated(sets: SignerSets, group: str, vaa_data: bytes, *, from_s: int | None = None) -> SignerSets:
    """Take over the set that a VAA of rotation names, after checking that the set before has signed it.

    Args:
        sets: sets with the one before.
        group: :data:`GUARDIANS` or :data:`ROUTERS`: whose set it is; both rotate by the same kind of VAA.
        vaa_data: the VAA (Core module, action 2: new index u32, count u8, addresses).
        from_s: when it took over; the VAA's own time when absent. The routers' VAAs have none (0): then the new set has
            no known beginning, and the one before keeps its end.

    Returns:
        The sets with the new one, and with an end to the one before, a day after the beginning. A set that is known
        stays as it is: an old rotation brings no retired set back.

    Raises:
        DecodeError: no such VAA.
        ConfigError: it is not the next set, or not signed by the one before, or another one of its number is known.
    """
    vaa = decode_vaa("rotation", vaa_data)
    payload = vaa.payload
    head = len(_UPGRADE) + 2
    if vaa.emitter != _GOVERNANCE or not payload.startswith(_UPGRADE) or len(payload) < head + 5:
        raise DecodeError("rotation: not a guardian set upgrade (Core module, action 2) of Wormhole's governance")
    index, count = int.from_bytes(payload[head : head + 4], "big"), payload[head + 4]
    keys = tuple(payload[place : place + 20] for place in range(head + 5, len(payload), 20))
    if len(keys) != count or not keys or len(keys[-1]) != 20:
        raise DecodeError(f"rotation: offset {head + 4}: expected {count} addresses of 20 bytes to the end")
    before = sets.get(ACCUMULATOR, group, vaa.set_index)
    if before is None or index != vaa.set_index + 1:
        raise ConfigError(f"rotation to set {index}: signed by set {vaa.set_index} of {group}, which is not known")
    signing = SignerSet(ACCUMULATOR, _GOVERNANCE, before.index, before.keys, before.quorum)
    verdict, _ = check_signatures(ACCUMULATOR, vaa, SignerSets([signing]))
    if not verdict.verified:
        raise ConfigError(f"rotation to set {index}: {verdict.why}: {verdict.detail}")
    known = sets.get(ACCUMULATOR, group, index)
    if known is not None and known.keys == keys:
        return sets
    if known is not None:
        raise ConfigError(f"rotation to set {index}: {group} is known to have another set of this number")
    begin = vaa.timestamp if from_s is None else from_s
    quorum = two_thirds(count) if group == GUARDIANS else majority(count)
    until_s = begin + HANDOVER_S if begin else before.until_s
    ended = msgspec.structs.replace(before, until_s=until_s)
    return sets.having(ended, SignerSet(ACCUMULATOR, group, index, keys, quorum, begin, None, before.proved))


def rotated_by_text(sets: SignerSets, vaas: Sequence[str], where: str) -> SignerSets:
    """Take over rotations one after the other, as a configuration has them: VAAs in hex, each signed by the set before.

    Whose they are is found out: the guardians' or the routers' set must have signed it. Of the routers' a known end of
    the set before is kept.

    Raises:
        ConfigError: one line with ``where``, the place in the list, and why neither has.
    """
    for number, text in enumerate(vaas, 1):
        reasons = []
        for group in (GUARDIANS, ROUTERS):
            try:
                sets = rotated(sets, group, bytes.fromhex(text.removeprefix("0x")))
                break
            except ValueError:
                raise ConfigError(f"{where}: VAA {number} is not in hex") from None
            except (ConfigError, DecodeError) as error:
                reasons.append(str(error))
        else:
            raise ConfigError(f"{where}: VAA {number}: {'; '.join(dict.fromkeys(reasons))}")
    return sets
