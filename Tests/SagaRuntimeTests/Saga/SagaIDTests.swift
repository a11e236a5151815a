import Testing

@testable import SagaRuntime

@Suite struct SagaIDTests {
    @Test func mintedIDsReadBack() {
        var generator = SplitMix64(state: 7)
        let id = SagaID(milliseconds: 1_730_188_800_000, using: &generator)
        #expect(SagaID(id.rawValue) == id)
        #expect(id.milliseconds == 1_730_188_800_000)
        #expect(id.rawValue.utf8.count == 29)
    }

    @Test func theRandomPartHasAllDigitsEverywhere() {
        var generator = SplitMix64(state: 7)
        let ids = (0..<2000).map { _ in SagaID(milliseconds: 1, using: &generator) }
        #expect(Set(ids).count == ids.count)
        for place in 19..<29 { #expect(Set(ids.map { Array($0.rawValue.utf8)[place] }) == Set(SagaID.alphabet)) }
    }

    @Test(arguments: [
        "", "saga_", "saga_1730188800000_7k2m9x4q1", "saga_1730188800000_7k2m9x4q1cc", "saga_17301888000000_k2m9x4q1c",
        "saga_1730188800000_7K2M9X4Q1C", "Saga_1730188800000_7k2m9x4q1c", "saga_1730188800000_7k2m9x4q1\u{e9}",
        "saga_173018880000x_7k2m9x4q1c",
    ]) func othersAreRefused(text: String) {
        #expect(SagaID(text) == nil)
    }

    @Test(
        arguments: [
            (0, "19700101"), (19_723, "20240101"), (19_782, "20240229"), (20_780, "20261123"), (47_540, "21000228"),
            (47_541, "21000301"),
        ] as [(Int64, String)]) func partitionsAreNamedByDay(day: Int64, name: String)
    {
        #expect(PartitionKeeper.name(of: day) == name)
    }

    @Test func aDayIsARangeOfIDs() {
        var generator = SplitMix64(state: 7)
        let last = SagaID(milliseconds: 20_781 * 86_400_000 - 1, using: &generator)
        let first = SagaID(milliseconds: 20_781 * 86_400_000, using: &generator)
        #expect(last.rawValue < PartitionKeeper.bound(20_781))
        #expect(first.rawValue >= PartitionKeeper.bound(20_781))
    }
}
