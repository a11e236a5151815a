public import SagaRuntime
import Synchronization

/// What a saga may ask about others that have to do with its device.
protocol DeviceSagas: Sendable {
    /// By the database's clock.
    var now: Timestamp { get }
    func device(_ id: String) async throws -> DeviceRecord?
    func saga(_ id: SagaID) async throws -> SagaSnapshot?
    /// The saga that creates a device, or has done so; `nil`: there is none, or its rows are gone.
    func creation(of deviceID: String) async throws -> SagaSnapshot?
    /// Tells a saga to stop, durably. One that has ended is left alone.
    func cancel(_ id: SagaID, for deletion: SagaID) async throws
    /// Whether it was told something that it hasn't heard yet.
    func hasCommands(_ id: SagaID) async throws -> Bool
}

/// The sagas of the runtime that drives these definitions. It is made after them, and `bind` tells it here.
public final class RuntimeDeviceSagas: DeviceSagas {
    /// The runtime holds the definitions, and those hold this.
    private struct Bound {
        weak var runtime: SagaRuntime?
    }
    private struct NotBound: Error {}

    private let devices: DeviceStore
    private let bound = Mutex(Bound())

    public init(devices: DeviceStore) { self.devices = devices }

    public func bind(_ runtime: SagaRuntime) { self.bound.withLock { $0.runtime = runtime } }

    private var runtime: SagaRuntime {
        get throws {
            guard let runtime = self.bound.withLock({ $0.runtime }) else { throw NotBound() }
            return runtime
        }
    }

    var now: Timestamp { (try? self.runtime.now) ?? Timestamp(microseconds: 0) }

    func device(_ id: String) async throws -> DeviceRecord? { try await self.devices.device(id) }

    func saga(_ id: SagaID) async throws -> SagaSnapshot? { try await self.runtime.snapshot(id) }

    func creation(of deviceID: String) async throws -> SagaSnapshot? {
        try await self.runtime.list(
            SagaFilter(type: DeviceCreation.type, resourceID: deviceID), before: nil, limit: 1
        ).sagas.first
    }

    func cancel(_ id: SagaID, for deletion: SagaID) async throws {
        _ = try await self.runtime.command(
            .cancel, to: id, by: deletion.rawValue, reason: "the device is to be deleted")
    }

    func hasCommands(_ id: SagaID) async throws -> Bool { try await self.runtime.hasCommands(id) }
}
