import NIOCore
import Testing

@testable import RPCTransport

@Suite struct ReflectionServiceTests {
    /// a.proto: package p; message M { enum E { V } message N {} int f; } service S { rpc Get }; imports b.proto, which
    /// imports c.proto.
    private static var descriptorSet: [UInt8] {
        var set = ProtoWriter()
        set.message(1) { file in
            file.string(1, "a.proto")
            file.string(2, "p")
            file.string(3, "b.proto")
            file.message(4) { message in
                message.string(1, "M")
                message.message(2) { $0.string(1, "f") }
                message.message(3) { $0.string(1, "N") }
                message.message(4) { enumeration in
                    enumeration.string(1, "E")
                    enumeration.message(2) { $0.string(1, "V") }
                }
            }
            file.message(6) { service in
                service.string(1, "S")
                service.message(2) { $0.string(1, "Get") }
            }
        }
        for (name, dependency) in [("b.proto", "c.proto"), ("c.proto", "")] {
            set.message(1) { file in
                file.string(1, name)
                file.string(3, dependency)
            }
        }
        return set.bytes
    }

    private static let service = ReflectionService(
        descriptorSet: descriptorSet, services: [RPCService(name: "p.S", methods: [])])

    private static func ask(_ field: UInt32, _ text: String, _ sent: inout Set<String>) throws -> [UInt32: [UInt8]] {
        var request = ProtoWriter()
        request.bytes(field, text.utf8)
        let response = try Self.service.answer(ByteBuffer(bytes: request.bytes), &sent)
        return Self.fields(Array(response.readableBytesView))
    }

    private static func fields(_ bytes: [UInt8]) -> [UInt32: [UInt8]] {
        var fields: [UInt32: [UInt8]] = [:]
        var reader = ProtoReader(bytes)
        while let (field, value) = reader.next() {
            if case .bytes(let bytes) = value { fields[field] = Array(bytes) }
        }
        return fields
    }

    private static func fileNames(_ list: [UInt8]) -> [String] {
        var names: [String] = []
        var reader = ProtoReader(list)
        while let (_, value) = reader.next() {
            if case .bytes(let bytes) = value {
                names.append(String(decoding: Self.fields(Array(bytes))[1] ?? [], as: UTF8.self))
            }
        }
        return names
    }

    @Test(arguments: ["p.S", "p.S.Get", "p.M", "p.M.N", "p.M.E", "p.M.V", "p.M.f"])
    func symbols(symbol: String) throws {
        var sent: Set<String> = []
        let answer = try #require(try Self.ask(4, symbol, &sent)[4])
        #expect(Self.fileNames(answer) == ["a.proto", "b.proto", "c.proto"])
    }

    @Test func filesAreSentOnce() throws {
        var sent: Set<String> = []
        #expect(Self.fileNames(try #require(try Self.ask(3, "b.proto", &sent)[4])) == ["b.proto", "c.proto"])
        #expect(Self.fileNames(try #require(try Self.ask(4, "p.S", &sent)[4])) == ["a.proto"])
        #expect(Self.fileNames(try #require(try Self.ask(3, "b.proto", &sent)[4])) == ["b.proto"])
    }

    @Test func notFoundIsAnAnswer() throws {
        var sent: Set<String> = []
        for (field, text) in [(3, "x.proto"), (4, "p.X"), (6, "p.X"), (5, "")] as [(UInt32, String)] {
            let error = try #require(try Self.ask(field, text, &sent)[7])
            #expect(error.starts(with: [8, 5]))
        }
        #expect(try Self.ask(6, "p.M", &sent)[5] != nil)
    }

    @Test func lists() throws {
        var sent: Set<String> = []
        let list = try #require(try Self.ask(7, "*", &sent)[6])
        #expect(
            Self.fileNames(list) == [
                "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection", "p.S",
            ])
    }

    /// Cut and flipped descriptor sets give an index with less in it, and nothing worse.
    @Test func badBytes() throws {
        let good = Self.descriptorSet
        for length in 0..<good.count { _ = DescriptorIndex(descriptorSet: Array(good[..<length])) }
        for index in good.indices {
            for bit in 0..<8 {
                var bad = good
                bad[index] ^= 1 << bit
                _ = DescriptorIndex(descriptorSet: bad)
            }
        }
        var sent: Set<String> = []
        #expect(throws: RPCError.self) { try Self.service.answer(ByteBuffer(bytes: [0x22, 0xFF]), &sent) }
    }
}
