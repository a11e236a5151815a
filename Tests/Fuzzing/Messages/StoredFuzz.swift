@testable import DeviceProvisioning
@testable import SagaRuntime

/// What is read from rows: written by this program, or by another version of it, or damaged.
enum StoredFuzz {
    static func run(_ choice: UInt8, _ bytes: [UInt8], _ broken: inout [String]) {
        let text = String(decoding: bytes, as: UTF8.self)
        switch choice {
        case 40: Self.events(bytes, &broken)
        case 41: Self.request(bytes, &broken)
        case 42: Self.options(bytes, &broken)
        case 43: _ = try? JSONValue(parsing: text)
        case 44: _ = try? PortPair(output: text)
        case 45: Self.device(text, &broken)
        case 46:
            if let id = SagaID(text) { _ = (id.milliseconds, id < id) }
        case 47:
            if let id = DeviceID.canonical(text), DeviceID.canonical(id) != id {
                broken.append("\(id) is not canonical")
            }
        case 48:
            if let cursor = DeviceCursor(text), DeviceCursor(cursor.text) != cursor {
                broken.append("a cursor changes")
            }
        default: break
        }
    }

    private static func events(_ bytes: [UInt8], _ broken: inout [String]) {
        if let events = try? JournalEventCodec.decode(bytes) {
            let again = try? JournalEventCodec.decode(JournalEventCodec.encode(events))
            // An attempt of zero may be written or not.
            if again != events { broken.append("events change when they are packed and unpacked") }
        }
        guard let id = SagaID("saga_1730188800000_7k2m9x4q1c") else { return }
        let row = EventRow(
            lastSequence: Int(bytes.count > 1 ? bytes[1] & 0x7F : 0), userID: nil, resourceID: nil, batchID: nil,
            events: bytes, databaseOutput: nil)
        _ = try? SagaHistory(id: id, rows: [row], stepNames: { _, _ in ["ONE", "TWO", "THREE"] })
    }

    private static func request(_ bytes: [UInt8], _ broken: inout [String]) {
        guard let request = try? DeviceRequest(decoding: bytes) else { return }
        if (try? DeviceRequest(decoding: request.encoded())) != request {
            broken.append("a device request changes when it is stored")
        }
    }

    private static func options(_ bytes: [UInt8], _ broken: inout [String]) {
        guard let options = try? ProviderOptions.decode(bytes) else { return }
        if (try? ProviderOptions.decode(ProviderOptions.encoded(options))) != options {
            broken.append("provider options change when they are stored")
        }
    }

    private static func device(_ text: String, _ broken: inout [String]) {
        guard let device = try? ProviderDevice(output: text) else { return }
        if (try? ProviderDevice(output: device.output)) != device {
            broken.append("a device changes when it is stored")
        }
    }
}
