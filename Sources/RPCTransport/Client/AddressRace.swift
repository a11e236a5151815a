/// Which of a name's addresses are tried, and when (RFC 8305): the next one whenever one has failed, and also if those
/// under way have not answered after a short while. Pure.
struct AddressRace<Address> {
    /// How long an address has for itself before the next one is tried beside it.
    static var stagger: Duration { .milliseconds(250) }

    enum OnFailure {
        case start(Address)
        /// Others are under way.
        case wait
        case allFailed
    }

    private var waiting: ArraySlice<Address>
    private var underWay = 0

    init(_ addresses: [Address]) { self.waiting = addresses[...] }

    var hasMore: Bool { !self.waiting.isEmpty }

    /// The next address to try beside those under way.
    mutating func next() -> Address? {
        guard let address = self.waiting.popFirst() else { return nil }
        self.underWay += 1
        return address
    }

    mutating func failed() -> OnFailure {
        self.underWay -= 1
        if let address = self.next() { return .start(address) }
        return self.underWay > 0 ? .wait : .allFailed
    }
}
