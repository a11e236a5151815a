import NIOCore
import Testing

@testable import RPCTransport

@Suite struct ProgressWatchTests {
    private static let start = NIODeadline.uptimeNanoseconds(1_000_000_000)

    private static func look(bytes: Int, after seconds: Int64) -> ProgressWatch.Verdict {
        ProgressWatch(bytes: 100, at: Self.start).look(
            bytes: bytes, at: Self.start + .seconds(seconds), patience: .seconds(30), bytesPerSecond: 1000)
    }

    @Test func nothingMovesForAWhile() {
        #expect(Self.look(bytes: 100, after: 29) == .patience)
        #expect(Self.look(bytes: 100, after: 30) == .tooSlow)
    }

    @Test func enoughMoves() { #expect(Self.look(bytes: 5100, after: 5) == .moves) }

    /// A byte now and then buys no time.
    @Test func tooLittleMoves() {
        #expect(Self.look(bytes: 200, after: 5) == .patience)
        #expect(Self.look(bytes: 200, after: 31) == .tooSlow)
    }
}
