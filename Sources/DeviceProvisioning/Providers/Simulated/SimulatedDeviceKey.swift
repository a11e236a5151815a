import SagaRuntime

/// The primary key of `simulated_device`, and the provider's own id made of it.
struct SimulatedDeviceKey: Hashable, Sendable, Comparable {
    var sagaID: String
    var generation: Int32
    /// 0 where create is unique by key, else random.
    var repeated: Int32

    init(sagaID: String, generation: Int32, repeated: Int32) {
        self.sagaID = sagaID
        self.generation = generation
        self.repeated = repeated
    }

    /// `sim-<milliseconds>-<random>-<generation>-<repeat>`; the first two are the saga id's.
    var externalID: String {
        let parts = self.sagaID.utf8.split(separator: UInt8(ascii: "_")).dropFirst()
        return "sim-\(parts.map { String(Substring($0)) }.joined(separator: "-"))-\(self.generation)-\(self.repeated)"
    }

    init?(externalID: String) {
        let parts = externalID.utf8.split(separator: UInt8(ascii: "-"), omittingEmptySubsequences: false)
            .map { Substring($0) }
        guard parts.count == 5, parts[0] == "sim", let generation = Int32(parts[3]), let repeated = Int32(parts[4])
        else { return nil }
        self.init(sagaID: "saga_\(parts[1])_\(parts[2])", generation: generation, repeated: repeated)
    }

    static func < (lhs: SimulatedDeviceKey, rhs: SimulatedDeviceKey) -> Bool {
        (lhs.sagaID, lhs.generation, lhs.repeated) < (rhs.sagaID, rhs.generation, rhs.repeated)
    }
}
