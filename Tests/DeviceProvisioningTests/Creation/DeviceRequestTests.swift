import SagaRuntime
import Testing

@testable import DeviceProvisioning

@Suite struct DeviceRequestTests {
    static let plain = DeviceRequest(
        deviceID: "01234567-89ab-7000-8000-00000000000f", name: "cloudphone-000001", provider: .simulated,
        userID: "user-1")

    static let full = DeviceRequest(
        deviceID: "01234567-89ab-7000-8000-00000000000f", name: "Mein Gerät 😀", description: "d", type: .tablet,
        provider: .redroid, userID: "u", tenantID: "t",
        spec: DeviceSpec(
            cpuCores: 16, memoryMB: 32768, storageMB: 1_048_576, widthPixels: 7680, heightPixels: 240, dpi: 640,
            androidVersion: "13.0"),
        tags: ["a", "b"], metadata: ["k": "v", "": ""])

    @Test(arguments: [plain, full])
    func readsWhatItWrote(_ request: DeviceRequest) throws {
        #expect(try DeviceRequest(decoding: request.encoded()) == request)
    }

    @Test func aPlainRequestIsSmall() {
        #expect(Self.plain.encoded().count <= 60)
    }

    /// A row is never trusted: each cut, each flipped byte either reads as something or throws.
    @Test func damagedBytesThrow() {
        let bytes = Self.full.encoded()
        for count in 0..<bytes.count {
            _ = try? DeviceRequest(decoding: Array(bytes.prefix(count)))
        }
        for index in bytes.indices {
            for bit in 0..<8 {
                var damaged = bytes
                damaged[index] ^= 1 << UInt8(bit)
                _ = try? DeviceRequest(decoding: damaged)
            }
        }
        #expect(throws: StoredDataError.self) { try DeviceRequest(decoding: []) }
        #expect(throws: StoredDataError.self) { try DeviceRequest(decoding: [1]) }
        #expect(throws: StoredDataError.self) { try DeviceRequest(decoding: [2] + bytes.dropFirst()) }
        #expect(throws: StoredDataError.self) { try DeviceRequest(decoding: bytes + [99]) }
        #expect(throws: StoredDataError.self) {
            try DeviceRequest(decoding: bytes + [2, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF])
        }
        #expect(throws: StoredDataError.self) { try DeviceRequest(decoding: bytes + [2, 1, 0xFF]) }
    }

    /// The digest of a request must not depend on the id that was minted for it, nor on the order of a map.
    @Test func fingerprintLeavesTheDeviceOut() {
        var other = Self.full
        other.deviceID = DeviceID.mint()
        #expect(
            other.fingerprint(options: ["a": "1", "b": "2"]) == Self.full.fingerprint(options: ["b": "2", "a": "1"]))
        #expect(Self.full.fingerprint(options: ["a": "1"]) != Self.full.fingerprint(options: [:]))
        other.name += " "
        #expect(other.fingerprint(options: [:]) != Self.full.fingerprint(options: [:]))
    }

    @Test func optionsSurvive() throws {
        let options = ["latency_ms": "5", "fail": "create:unavailable"]
        #expect(try ProviderOptions.decode(ProviderOptions.encoded(options)) == options)
        #expect(ProviderOptions.encoded([:]).isEmpty)
        #expect(throws: StoredDataError.self) { try ProviderOptions.decode([1, 5, 65]) }
        #expect(throws: StoredDataError.self) { try ProviderOptions.decode([9]) }
    }

    @Test func outputsSurvive() throws {
        let device = ProviderDevice(
            externalID: "x\"1", host: "h", generation: 3, isUsable: false, attributes: ["a": "b"])
        #expect(try ProviderDevice(output: device.output) == device)
        #expect(throws: StoredDataError.self) { try ProviderDevice(output: "{}") }
        #expect(
            try PortPair(output: #"{"host":"h","adb":5555,"webrtc":8080}"#)
                == PortPair(host: "h", adb: 5555, webRTC: 8080))
        #expect(try PortPair(output: "{}") == nil)
        #expect(try PortPair(output: nil) == nil)
        #expect(throws: StoredDataError.self) { try PortPair(output: "{\"host\":1}") }
        let connection = DeviceConnection(host: "h", adbPort: 1, webRTCPort: 2, attributes: ["a": "b"])
        #expect(DeviceConnection(output: connection.output) == connection)
    }
}
