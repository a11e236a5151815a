/// How much of what waits in its socket a connection reads in its turn of the event loop: about as much as makes so much
/// work, so that nobody waits long for a neighbour who sends frames by the thousand, and a large message comes in few
/// reads. Judged by the read before, with which a peer must pay for a larger one.
struct ReadSize {
    /// In units of a frame. A read of so much takes about as long as the calls in it, a tenth of a millisecond.
    static let work = 256
    static let smallest = 4096
    static let largest = 128 * 1024
    /// A read grows to this multiple of the one before.
    static let growth = 4

    /// Of the next read.
    private(set) var bytes = smallest

    mutating func hasRead(_ count: Int, work: Int) {
        let affordable = count * Self.work / max(1, work)
        self.bytes = max(Self.smallest, min(affordable, Self.growth * self.bytes, Self.largest))
    }
}
