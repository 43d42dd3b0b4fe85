// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

// What a price feed shows to a reader, small enough for tests: an aggregator that emits the events of an OCR2 report in
// their order, and a proxy that points at one aggregator after another and emits nothing.

contract Aggregator {
    struct Round {
        int256 answer;
        uint256 startedAt;
        uint256 updatedAt;
    }

    uint8 public decimals;
    string public description;
    uint32 public round;
    mapping(uint32 => Round) private rounds;

    event NewTransmission(
        uint32 indexed aggregatorRoundId,
        int192 answer,
        address transmitter,
        uint32 observationsTimestamp,
        int192[] observations,
        bytes observers,
        int192 juelsPerFeeCoin,
        bytes32 configDigest,
        uint40 epochAndRound
    );
    event NewRound(uint256 indexed roundId, address indexed startedBy, uint256 startedAt);
    event AnswerUpdated(int256 indexed current, uint256 indexed roundId, uint256 updatedAt);

    constructor(uint8 decimals_, string memory description_) {
        decimals = decimals_;
        description = description_;
    }

    /// One answer, observed some seconds before its block.
    function transmit(int192 answer, uint32 secondsAgo) external {
        uint32 observed = uint32(block.timestamp) - secondsAgo;
        round++;
        rounds[round] = Round(answer, observed, block.timestamp);
        int192[] memory observations = new int192[](1);
        observations[0] = answer;
        emit NewTransmission(round, answer, msg.sender, observed, observations, hex"00", 0, bytes32(uint256(1)), 257);
        emit NewRound(round, address(0), observed);
        emit AnswerUpdated(answer, round, block.timestamp);
    }

    /// An answer with times of its own choice, as a sequencer's uptime feed has them; it emits AnswerUpdated alone.
    function report(int256 answer, uint256 startedAt, uint256 updatedAt) external {
        round++;
        rounds[round] = Round(answer, startedAt, updatedAt);
        emit AnswerUpdated(answer, round, updatedAt);
    }

    function latestRoundData() external view returns (uint80, int256, uint256, uint256, uint80) {
        Round memory held = rounds[round];
        require(held.updatedAt > 0, "No data present");
        return (round, held.answer, held.startedAt, held.updatedAt, round);
    }
}

contract Proxy {
    uint16 public phaseId;
    mapping(uint16 => address) public phaseAggregators;

    constructor(address aggregator_) {
        change(aggregator_);
    }

    /// Points at another aggregator from now on: the next phase.
    function change(address aggregator_) public {
        phaseId++;
        phaseAggregators[phaseId] = aggregator_;
    }

    function aggregator() public view returns (address) {
        return phaseAggregators[phaseId];
    }

    function decimals() external view returns (uint8) {
        return Aggregator(aggregator()).decimals();
    }

    function description() external view returns (string memory) {
        return Aggregator(aggregator()).description();
    }

    function latestRoundData()
        external
        view
        returns (uint80 roundId, int256 answer, uint256 startedAt, uint256 updatedAt, uint80 answeredInRound)
    {
        (roundId, answer, startedAt, updatedAt, ) = Aggregator(aggregator()).latestRoundData();
        roundId = (uint80(phaseId) << 64) | roundId;
        answeredInRound = roundId;
    }
}
