import DeviceRPC
import NIOCore
import SagaRuntime
import Testing

@Suite struct MessageCodingTests {
    @Test(arguments: MessageSamples.all.indices)
    func everyMessageSurvivesTheWire(index: Int) throws {
        func check<Message: ProtobufMessage>(_ message: Message) throws {
            let bytes = message.encoded()
            #expect(bytes.readableBytes > 0)
            #expect(try Message(decoding: bytes, limits: .response) == message)
            #expect(try Message(decoding: Message().encoded()) == Message())
            #expect(Message().encoded().readableBytes == 0)
        }
        try check(MessageSamples.all[index])
    }

    @Test func fullNamesAreTheContracts() {
        #expect(V1.Device.fullName == "cloudphone.device.v1.Device")
        #expect(GoogleRPC.FieldViolation.fullName == "google.rpc.BadRequest.FieldViolation")
        #expect(PackedMessage.fullName == "google.protobuf.Any")
    }

    @Test func wireBytesAreProtobufs() {
        // Field 1, length-delimited: "d"; field 15, message: seconds 1, nanos 5000.
        let device = V1.Device.with {
            $0.deviceID = "d"
            $0.createdAt = Timestamp(microseconds: 1_000_005)
        }
        #expect(
            Array(device.encoded().readableBytesView)
                == [0x0a, 0x01, 0x64, 0x7a, 0x05, 0x08, 0x01, 0x10, 0x88, 0x27])
    }

    @Test func headroomComesFirst() {
        let buffer = V1.GetSagaRequest.with { $0.sagaID = "s" }.encoded(headroom: 5)
        #expect(Array(buffer.readableBytesView) == [0, 0, 0, 0, 0, 0x0a, 1, 0x73])
    }

    @Test func encodingAppends() throws {
        var buffer = ByteBuffer(string: "x")
        V1.GetSagaRequest.with { $0.sagaID = "s" }.encode(into: &buffer)
        #expect(buffer.readString(length: 1) == "x")
        #expect(try V1.GetSagaRequest(decoding: buffer).sagaID == "s")
    }

    @Test func unknownEnumValuesAreKept() throws {
        for raw in [Int32.min, -1, 8, 77, .max] {
            let device = V1.Device.with { $0.status = V1.DeviceStatus(rawValue: raw) }
            let decoded = try V1.Device(decoding: device.encoded())
            #expect(decoded.status.rawValue == raw)
            #expect(!decoded.status.isKnown)
            #expect(decoded.status.shortName == String(raw))
        }
    }

    @Test func unknownFieldsAreIgnored() throws {
        var bytes = V1.GetSagaRequest.with { $0.sagaID = "s" }.encoded()
        bytes.writeBytes([0x98, 0x06, 0x01])  // field 99, varint
        bytes.writeBytes([0x9a, 0x06, 0x02, 0xff, 0x00])  // field 99, bytes that are not UTF-8
        bytes.writeBytes([0x99, 0x06, 1, 2, 3, 4, 5, 6, 7, 8])  // field 99, 64 bits
        bytes.writeBytes([0x9d, 0x06, 1, 2, 3, 4])  // field 99, 32 bits
        #expect(try V1.GetSagaRequest(decoding: bytes).sagaID == "s")
    }

    @Test func lastOfARepeatedMapKeyWins() throws {
        // Device.metadata = 11: two entries with the key "k".
        let bytes = ByteBuffer(bytes: [
            0x5a, 6, 0x0a, 1, 0x6b, 0x12, 1, 0x31, 0x5a, 6, 0x0a, 1, 0x6b, 0x12, 1, 0x32,
            0x5a, 3, 0x12, 1, 0x33,  // no key
        ])
        #expect(try V1.Device(decoding: bytes).metadata == ["k": "2", "": "3"])
    }

    @Test func lastOfARepeatedSingularFieldWins() throws {
        var bytes = V1.Device.with { $0.name = "first" }.encoded()
        V1.Device.with { $0.name = "second" }.encode(into: &bytes)
        #expect(try V1.Device(decoding: bytes).name == "second")
    }

    /// protobuf-c would lose fields while it merges them, so they are refused rather than read wrongly.
    @Test func repeatedSingularMessagesAreRefused() throws {
        var bytes = V1.Device.with { $0.spec = .with { $0.cpuCores = 1 } }.encoded()
        V1.Device.with { $0.spec = .with { $0.dpi = 240 } }.encode(into: &bytes)
        #expect {
            try V1.Device(decoding: bytes)
        } throws: {
            ($0 as? MessageDecodingError)?.reason == .repeatedMessage
        }
    }

    @Test func packedAndUnpackedRepeatedEnumsAreBothRead() throws {
        let packed = ByteBuffer(bytes: [0x12, 2, 1, 2])
        let unpacked = ByteBuffer(bytes: [0x10, 1, 0x10, 2])
        #expect(try V1.ListDevicesRequest(decoding: packed).statuses == [.creating, .running])
        #expect(try V1.ListDevicesRequest(decoding: unpacked).statuses == [.creating, .running])
    }

    @Test func mapsAreWrittenInTheOrderOfTheirKeys() {
        let metadata = Dictionary(uniqueKeysWithValues: (0..<32).map { ("key-\($0)", "v") })
        let first = V1.Device.with { $0.metadata = metadata }.encoded()
        let second = V1.Device.with { $0.metadata = Dictionary(uniqueKeysWithValues: metadata.shuffled()) }.encoded()
        #expect(first == second)
    }

    @Test func nulInOurOwnTextIsLeftOutRatherThanCuttingIt() throws {
        let device = V1.Device.with { $0.name = "a\0b" }
        #expect(try V1.Device(decoding: device.encoded()).name == "ab")
    }

    @Test func timestampsBeyondOurRangeAreClamped() throws {
        // createdAt with seconds = Int64.min.
        let bytes = ByteBuffer(bytes: [0x7a, 11, 0x08, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01])
        #expect(try V1.Device(decoding: bytes).createdAt == Timestamp(microseconds: -9_000_000_000_000_000_000))
    }

    @Test func enumNames() {
        #expect(V1.Provider.huaweiCPH.name == "PROVIDER_HUAWEI_CPH")
        #expect(V1.Provider.huaweiCPH.shortName == "HUAWEI_CPH")
        #expect(V1.Provider(name: "redroid") == .redroid)
        #expect(V1.Provider(name: "PROVIDER_REDROID") == .redroid)
        #expect(V1.Provider(name: "toaster") == nil)
        #expect(V1.SagaEventType.known.count == 18)
    }

    @Test func descriptorSetHoldsWhatReflectionServes() {
        let text = String(decoding: DescriptorSet.bytes, as: UTF8.self)
        for name in [
            "cloudphone/device/v1/device_service.proto", "grpc/health/v1/health.proto",
            "grpc/reflection/v1/reflection.proto", "grpc/reflection/v1alpha/reflection.proto",
            "google/protobuf/timestamp.proto", "google/rpc/error_details.proto", "DeviceAdminService",
        ] {
            #expect(text.contains(name))
        }
    }
}
