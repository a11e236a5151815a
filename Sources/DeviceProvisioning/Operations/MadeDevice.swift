import SagaRuntime

/// What a creation made, as the device's row keeps it (`devices.made`): all that its deletion must know and can't look up.
struct MadeDevice: Equatable {
    /// As the provider knows it; `nil`: it is found by its label alone.
    var device: ProviderDevice?
    /// A call that made it was not answered: another one may appear still.
    var isInDoubt: Bool
    /// The generation of REPORT_QUOTA_USAGE under which the user service counted it; 0: it didn't. `nil`: nobody wrote it down.
    var usage: Int?

    /// Of a creation that is done.
    init(creation view: SagaView) {
        self.device = view.outputs[DeviceStep.createProviderDevice].flatMap { try? ProviderDevice(output: $0) }
        self.isInDoubt = view.doubtfulSteps.contains(DeviceStep.createProviderDevice)
        self.usage = view.outputs[DeviceStep.reportQuotaUsage].map(UsageKey.generation(output:)) ?? 0
    }

    /// Of a row: what nobody wrote down is taken for doubtful.
    init(_ value: JSONValue?) throws(StoredDataError) {
        guard let value else {
            self.isInDoubt = true
            return
        }
        if let device = value["device"] { self.device = try ProviderDevice(device) }
        self.usage = value["usage"]?.integer
        // Written last: without it the creation was brought to its end by an older program.
        self.isInDoubt = value["doubt"]?.bool ?? (self.usage == nil)
    }

    var encoded: String {
        JSONWriter.object(reserving: 256) { writer in
            if let device = self.device { writer.member("device", json: device.output) }
            if self.isInDoubt { writer.member("doubt", true) }
            if let usage = self.usage { writer.member("usage", usage) }
        }
    }
}

/// The key under which REPORT_QUOTA_USAGE has counted a device, which the decrement's is derived from.
enum UsageKey {
    /// The step's output.
    static func output(generation: Int) -> String {
        JSONWriter.object(reserving: 32) { $0.member("generation", generation) }
    }

    /// Older programs left none: then it is the first. A wrong one makes no difference to the service, as long as all who take the
    /// usage back derive the same.
    static func generation(output: String) -> Int { (try? JSONValue(parsing: output))?["generation"]?.integer ?? 1 }

    static func key(_ creation: SagaID, generation: Int) -> String {
        "\(creation.rawValue):\(DeviceStep.reportQuotaUsage):\(generation)"
    }
}
