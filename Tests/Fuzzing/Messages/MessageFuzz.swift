import DeviceRPC
import NIOCore

/// Bytes that become values: messages off the wire, JSON, header values, what is stored. The first byte says which.
enum MessageFuzz {
    static func run(_ source: inout ByteSource) -> [String] {
        let choice = source.byte()
        let bytes = source.rest()
        var broken: [String] = []
        switch choice {
        case 0: Self.check(V1.CreateDeviceRequest.self, bytes, &broken) { Self.validate($0) }
        case 1:
            Self.check(V1.DeleteDeviceRequest.self, bytes, &broken) {
                try? DeviceOperationSpecification(validating: $0)
            }
        case 2: Self.check(V1.GetDeviceRequest.self, bytes, &broken) { try? $0.validatedDeviceID() }
        case 3: Self.check(V1.ListDevicesRequest.self, bytes, &broken) { try? ListDevicesQuery(validating: $0) }
        case 4: Self.check(V1.ListPortsRequest.self, bytes, &broken) { try? ListPortsQuery(validating: $0) }
        case 5: Self.check(V1.GetSagaRequest.self, bytes, &broken) { try? $0.validatedSagaID() }
        case 6: Self.check(V1.BatchGetSagasRequest.self, bytes, &broken) { try? $0.validatedSagaIDs() }
        case 7: Self.check(V1.WatchSagaRequest.self, bytes, &broken) { try? $0.validatedSagaID() }
        case 8: Self.check(V1.ListSagasRequest.self, bytes, &broken) { try? ListSagasQuery(validating: $0) }
        case 9: Self.check(V1.CompensateSagaRequest.self, bytes, &broken) { try? $0.validatedSagaID() }
        case 10: Self.check(V1.ResumeSagaRequest.self, bytes, &broken) { try? $0.validatedSagaID() }
        case 11: Self.check(V1.ListDevicesResponse.self, bytes, &broken) { $0 }
        case 12: Self.check(V1.BatchGetSagasResponse.self, bytes, &broken) { $0 }
        case 13: Self.check(V1.SagaEvent.self, bytes, &broken) { $0 }
        case 14: Self.check(V1.CreateDeviceResponse.self, bytes, &broken) { $0 }
        case 15: Self.check(V1.ListPortsResponse.self, bytes, &broken) { $0 }
        case 16: Self.checkJSON(V1.CreateDeviceRequest.self, bytes, &broken)
        case 17: Self.checkJSON(V1.ListDevicesResponse.self, bytes, &broken)
        case 18: Self.checkJSON(V1.BatchGetSagasResponse.self, bytes, &broken)
        case 19...39: TextFuzz.run(choice - 19, bytes, &broken)
        case 49: Self.check(V1.CreateDevicesResult.self, bytes, &broken) { $0 }
        case 50:
            Self.check(V1.WatchSagasRequest.self, bytes, &broken) {
                try? WatchSagasQuery(validating: $0, mayWatchAll: false)
            }
        case 51: Self.check(V1.WatchSagasResponse.self, bytes, &broken) { $0 }
        case 52: Self.check(V1.BatchGetDevicesRequest.self, bytes, &broken) { try? $0.validatedDeviceIDs() }
        case 53: Self.check(V1.BatchGetDevicesResponse.self, bytes, &broken) { $0 }
        default: StoredFuzz.run(choice, bytes, &broken)
        }
        return broken
    }

    /// Decoding either throws or gives a value that survives a round trip; the rules for its fields then either throw
    /// or pass.
    private static func check<Message: ProtobufMessage, Validated>(
        _ type: Message.Type, _ bytes: [UInt8], _ broken: inout [String], validate: (Message) -> Validated
    ) {
        guard let message = try? Message(decoding: ByteBuffer(bytes: bytes)) else { return }
        do {
            let again = try Message(decoding: message.encoded(), limits: .response)
            if again != message { broken.append("\(type) changes when it is encoded and decoded") }
        } catch {
            broken.append("what was encoded of \(type) is refused: \(error)")
        }
        let json = message.json(.pretty)
        if let again = try? Message(json: json), again.json(.pretty) != json {
            broken.append("\(type) changes when it is written as JSON and read")
        }
        _ = validate(message)
    }

    private static func validate(_ request: V1.CreateDeviceRequest) -> [UInt8]? {
        let rules = CreateDeviceSpecification.Rules(defaultProvider: .simulated, providers: [.simulated, .redroid])
        return try? CreateDeviceSpecification(validating: request, rules: rules).canonicalBytes
    }

    private static func checkJSON<Message: ProtobufMessage>(
        _ type: Message.Type, _ bytes: [UInt8], _ broken: inout [String]
    ) {
        let text = String(decoding: bytes, as: UTF8.self)
        _ = try? ProtoJSON.messages(text, as: Message.self)
        guard let message = try? Message(json: text) else { return }
        do {
            let again = try Message(json: message.json())
            if again != message { broken.append("\(type) of JSON changes when it is written and read") }
            if try Message(decoding: message.encoded(), limits: .response) != message {
                broken.append("\(type) of JSON changes on the wire")
            }
        } catch {
            broken.append("what was written of \(type) is refused: \(error)")
        }
    }
}
