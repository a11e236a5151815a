import DeviceRPC
import NIOCore
import RPCTransport
import Testing

/// Nothing that a peer sends may crash the server, take unbounded memory, or get through damaged.
@Suite struct HostileBytesTests {
    private func failure<Message: ProtobufMessage>(
        _ bytes: [UInt8], as type: Message.Type, limits: DecodingLimits = .request
    ) -> MessageDecodingError.Reason? {
        do {
            _ = try Message(decoding: ByteBuffer(bytes: bytes), limits: limits)
            return nil
        } catch {
            return error.reason
        }
    }

    @Test(
        arguments: [
            ([0x0a], .truncated),  // a tag and nothing else
            ([0x0a, 0x02, 0x41], .truncated),  // a string shorter than its length
            ([0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f], .truncated),  // 4 GiB announced
            // A length of 10 bytes.
            ([0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], .malformedNumber),
            ([0x80], .truncated),  // half a tag
            ([0x80, 0x80, 0x80, 0x80, 0x80, 0x01], .malformedNumber),  // a tag of 6 bytes
            ([0x00, 0x00], .malformedTag),  // field 0
            ([0xf8, 0xff, 0xff, 0xff, 0x7f, 0x00], .malformedTag),  // field beyond 2^29 - 1
            ([0x0e], .malformedTag), ([0x0f], .malformedTag),  // wire types 6 and 7
            ([0x0b, 0x0c], .group), ([0x0c], .group), ([0xf3, 0x01, 0xf4, 0x01], .group),
            ([0x08, 0x01], .wireTypeMismatch),  // device_id as a number
            ([0x22, 0x01, 0x41], .wireTypeMismatch),  // type as a string
            ([0x4d, 0, 0, 0, 0], .wireTypeMismatch),  // spec as 32 bits
            ([0x20, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], .malformedNumber),
            ([0x20, 0xff], .truncated),
            ([0x49, 1, 2], .truncated), ([0x0d, 1, 2], .truncated),
            ([0x0a, 0x01, 0x00], .nul),
            ([0x0a, 0x07, 0x61, 0x64, 0x6d, 0x69, 0x6e, 0x00, 0x78], .nul),  // "admin\0x" is not "admin"
            ([0x0a, 0x01, 0xff], .invalidUTF8), ([0x0a, 0x02, 0xc0, 0x80], .invalidUTF8),  // overlong NUL
            ([0x0a, 0x03, 0xed, 0xa0, 0x80], .invalidUTF8),  // a surrogate
            ([0x0a, 0x04, 0xf4, 0x90, 0x80, 0x80], .invalidUTF8),  // beyond U+10FFFF
            ([0x0a, 0x02, 0xe2, 0x98], .invalidUTF8),  // cut in the middle
            ([0x52, 0x01, 0xff], .invalidUTF8),  // an element of tags
            ([0x5a, 0x03, 0x0a, 0x01, 0xff], .invalidUTF8),  // a key of metadata
            ([0x5a, 0x03, 0x12, 0x01, 0x00], .nul),  // a value of metadata
            ([0x4a, 0x03, 0x3a, 0x01, 0x80], .invalidUTF8),  // spec.android_version
            ([0x4a, 0x02, 0x08], .truncated),
        ] as [([UInt8], MessageDecodingError.Reason)])
    func damageIsNamed(bytes: [UInt8], reason: MessageDecodingError.Reason) {
        #expect(self.failure(bytes, as: V1.Device.self) == reason)
    }

    @Test func theErrorNamesMessageAndField() {
        let bytes = ByteBuffer(bytes: [0x4a, 0x03, 0x3a, 0x01, 0x80])
        #expect {
            try V1.Device(decoding: bytes)
        } throws: { error in
            "\(error)" == "cannot parse cloudphone.device.v1.DeviceSpec: android_version is not valid UTF-8"
        }
    }

    /// A NUL is well-formed protobuf: the value is what is wrong.
    @Test(
        arguments: [
            ([0x0a, 0x01, 0x00], "device_id"), ([0x4a, 0x03, 0x3a, 0x01, 0x00], "spec.android_version"),
            ([0x5a, 0x03, 0x12, 0x01, 0x00], "metadata.value"),
        ] as [([UInt8], String)])
    func aNULIsAnInvalidField(bytes: [UInt8], field: String) {
        #expect {
            try V1.Device(decoding: ByteBuffer(bytes: bytes))
        } throws: { error in
            guard let error = error as? MessageDecodingError else { return false }
            let refusal = RPCError(error)
            let violations = refusal.status?.detail(GoogleRPC.BadRequest.self)?.fieldViolations
            return refusal.code == .invalidArgument && refusal.errorInfo?.reason == "INVALID_FIELD"
                && violations?.map { $0.field } == [field]
        }
    }

    @Test func validUTF8OfEveryLengthPasses() throws {
        for text in ["a", "é", "☺", "😈", "\u{FFFF}", "\u{10FFFF}", "\u{1}"] {
            let device = V1.Device.with { $0.name = text }
            #expect(try V1.Device(decoding: device.encoded()).name == text)
        }
    }

    /// Strings that Swift would take seconds to compare. As a NUL, a value that is wrong and not a message.
    @Test(arguments: ["\u{301}\u{316}", "\u{345}\u{301}\u{316}", "\u{1D165}\u{1D16D}", "\u{64B}"])
    func marksInARowAreBounded(marks: String) throws {
        func request(_ count: Int) -> V1.CreateDeviceRequest {
            var key = "e".unicodeScalars
            while key.count < count + 1 {
                key.append(contentsOf: marks.unicodeScalars.prefix(count + 1 - key.count))
            }
            return V1.CreateDeviceRequest.with { $0.metadata = [String(key): ""] }
        }
        #expect(try V1.CreateDeviceRequest(decoding: request(30).encoded()).metadata.count == 1)
        #expect {
            try V1.CreateDeviceRequest(decoding: request(31).encoded())
        } throws: { error in
            guard let error = error as? MessageDecodingError, error.reason == .tooManyMarks else { return false }
            let refusal = RPCError(error)
            let violations = refusal.status?.detail(GoogleRPC.BadRequest.self)?.fieldViolations
            return refusal.code == .invalidArgument && refusal.refusal == .messageTooComplex
                && violations?.map { $0.field } == ["metadata.key"]
        }
        // Many of them, but not in a row.
        let text = String(repeating: "e\u{301}\u{316}", count: 100) + "日本語"
        let many = V1.CreateDeviceRequest.with { $0.description = text }
        #expect(try V1.CreateDeviceRequest(decoding: many.encoded()).description == text)
    }

    @Test func depthIsBounded() {
        var limits = DecodingLimits.request
        limits.maximumDepth = 2
        let response = V1.ListDevicesResponse.with { $0.devices = [.with { $0.spec = V1.DeviceSpec() }] }
        let bytes = Array(response.encoded().readableBytesView)
        #expect(self.failure(bytes, as: V1.ListDevicesResponse.self, limits: limits) == .tooDeep)
        limits.maximumDepth = 3
        #expect(self.failure(bytes, as: V1.ListDevicesResponse.self, limits: limits) == nil)
    }

    /// 4 MiB of two-byte unknown fields would cost protobuf-c 200 MB and two million allocations.
    @Test func unknownFieldsDoNotAmplify() {
        let bytes = [UInt8](repeating: 0, count: 4 << 20).enumerated().map { $0.offset % 2 == 0 ? UInt8(0x78) : 0 }
        #expect(self.failure(bytes, as: V1.GetSagaRequest.self) == .tooManyFields)
        // Even without the bound on fields the arena's cap holds.
        var limits = DecodingLimits.request
        limits.maximumFields = .max
        #expect(self.failure(bytes, as: V1.GetSagaRequest.self, limits: limits) == .tooMuchMemory)
    }

    @Test func emptyElementsDoNotAmplify() {
        var bytes: [UInt8] = []
        for _ in 0..<1_000_000 { bytes += [0x0a, 0x00] }  // saga_ids: ""
        #expect(self.failure(bytes, as: V1.BatchGetSagasRequest.self) == .tooManyFields)
        var limits = DecodingLimits.request
        limits.maximumFields = .max
        #expect(self.failure(bytes, as: V1.BatchGetSagasRequest.self, limits: limits) == .tooMuchMemory)
    }

    @Test func packedElementsCountAsFields() {
        let count = 100_000
        let bytes: [UInt8] = [0x12, 0xa0, 0x8d, 0x06] + [UInt8](repeating: 1, count: count)
        #expect(self.failure(bytes, as: V1.ListDevicesRequest.self) == .tooManyFields)
    }

    /// protobuf-c would refuse them too, but without a word: they would pass for messages that take too much memory.
    @Test(
        arguments: [
            ([0x12, 0x02, 0x01, 0x80], .truncated),
            ([0x12, 0x0b] + [UInt8](repeating: 0xff, count: 10) + [0x01], .malformedNumber),
        ] as [([UInt8], MessageDecodingError.Reason)])
    func packedElementsAreChecked(bytes: [UInt8], reason: MessageDecodingError.Reason) {
        #expect(self.failure(bytes, as: V1.ListDevicesRequest.self) == reason)
    }

    @Test func theLargestLegitimateMessagesPass() throws {
        let request = V1.BatchGetSagasRequest.with {
            $0.sagaIDs = (0..<1000).map { "saga_1730188800000_\(1_000_000_000 + $0)" }
        }
        #expect(try V1.BatchGetSagasRequest(decoding: request.encoded()) == request)
        let create = V1.CreateDeviceRequest.with {
            $0.name = String(repeating: "😈", count: 100)
            $0.description = String(repeating: "😈", count: 500)
            $0.tags = Array(repeating: String(repeating: "😈", count: 50), count: 10)
            for index in 0..<32 { $0.metadata["\(index)"] = "v" }
            for index in 0..<32 { $0.providerOptions["\(index)"] = String(repeating: "x", count: 256) }
        }
        #expect(try V1.CreateDeviceRequest(decoding: create.encoded()) == create)
        let response = V1.BatchGetSagasResponse.with { $0.sagas = Array(repeating: MessageSamples.saga, count: 1000) }
        #expect(try V1.BatchGetSagasResponse(decoding: response.encoded(), limits: .response) == response)
    }

    /// Whatever is done to the bytes, they are refused or read as something that survives a round trip.
    @Test(arguments: 0..<8)
    func mutationsNeverCrash(seed: UInt64) throws {
        var random = SeededGenerator(seed: seed)
        func check<Message: ProtobufMessage>(_ message: Message) {
            let original = Array(message.encoded().readableBytesView.prefix(2000))
            for _ in 0..<150 {
                var bytes = original
                for _ in 0...Int.random(in: 0...4, using: &random) where !bytes.isEmpty {
                    let index = Int.random(in: 0..<bytes.count, using: &random)
                    switch Int.random(in: 0..<6, using: &random) {
                    case 0: bytes[index] = UInt8.random(in: 0...255, using: &random)
                    case 1: bytes[index] ^= 1 << UInt8.random(in: 0..<8, using: &random)
                    case 2: bytes.removeSubrange(index...)
                    case 3: bytes.remove(at: index)
                    case 4: bytes.insert(UInt8.random(in: 0...255, using: &random), at: index)
                    default: bytes.insert(contentsOf: bytes[index...].prefix(20), at: index)
                    }
                }
                guard let decoded = try? Message(decoding: ByteBuffer(bytes: bytes), limits: .request) else { continue }
                let again = try? Message(decoding: decoded.encoded(), limits: .response)
                #expect(again == decoded, "seed \(seed), bytes \(bytes)")
            }
        }
        for message in MessageSamples.all { check(message) }
    }

    @Test(arguments: 0..<4)
    func noiseNeverCrashes(seed: UInt64) {
        var random = SeededGenerator(seed: 1000 + seed)
        for _ in 0..<2000 {
            let bytes = (0..<Int.random(in: 0..<64, using: &random)).map { _ in
                UInt8.random(in: 0...255, using: &random)
            }
            _ = self.failure(bytes, as: V1.CreateDeviceRequest.self)
            _ = self.failure(bytes, as: V1.ListSagasRequest.self)
            _ = self.failure(bytes, as: GoogleRPC.Status.self)
        }
    }

    @Test func conversionsOnManyThreadsDoNotShareMemory() async throws {
        try await withThrowingTaskGroup(of: Void.self) { group in
            for task in 0..<8 {
                group.addTask {
                    for round in 0..<200 {
                        let device = V1.Device.with {
                            $0.name = "\(task)-\(round)"
                            $0.description = String(repeating: "x", count: round * 300)
                        }
                        let decoded = try V1.Device(decoding: device.encoded())
                        #expect(decoded == device)
                    }
                }
            }
            try await group.waitForAll()
        }
    }
}
