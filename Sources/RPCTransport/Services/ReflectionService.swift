import NIOCore

/// `grpc.reflection.v1` and `v1alpha`, which differ in nothing but their package, for grpcurl, buf curl, Postman and
/// the like.
public struct ReflectionService: Sendable {
    private let index: DescriptorIndex
    private let serviceNames: [String]

    /// - Parameters:
    ///   - descriptorSet: a serialized `google.protobuf.FileDescriptorSet`, as `protoc --include_imports` writes it.
    ///   - services: those that are to be listed; the reflection services add themselves.
    public init(descriptorSet: [UInt8], services: [RPCService]) {
        self.index = DescriptorIndex(descriptorSet: descriptorSet)
        self.serviceNames = (services.map(\.name) + Self.packages.map { "\($0).ServerReflection" }).sorted()
    }

    private static let packages = ["grpc.reflection.v1", "grpc.reflection.v1alpha"]

    public var services: [RPCService] {
        Self.packages.map { package in
            RPCService(
                name: "\(package).ServerReflection",
                methods: [
                    .bidirectional("ServerReflectionInfo", endsAtDrain: true, maximumMessageBytes: 65536) {
                        messages, _, writer in
                        // A file is sent once on a stream.
                        var sent: Set<String> = []
                        for try await message in messages {
                            try await writer.write(self.answer(message, &sent))
                        }
                    }
                ])
        }
    }

    // Field numbers are those of grpc/reflection/v1/reflection.proto.

    func answer(_ message: ByteBuffer, _ sent: inout Set<String>) throws(RPCError) -> ByteBuffer {
        let request = Array(message.readableBytesView)
        var host = ""
        var question: (field: UInt32, text: String)?
        var reader = ProtoReader(request)
        while let (field, value) = reader.next() {
            guard case .bytes(let bytes) = value else { continue }
            switch field {
            case 1: host = try Self.text(bytes)
            case 3, 4, 6, 7: question = (field, try Self.name(bytes))
            case 5: question = (field, "")
            default: break
            }
        }
        guard !reader.isMalformed else { throw Self.unparsable }

        var response = ProtoWriter()
        response.string(1, host)
        response.bytes(2, request)
        switch question {
        case (3, let name)?:  // file_by_filename
            self.writeFiles(name, "file \(name)", &response, &sent)
        case (4, let symbol)?:  // file_containing_symbol
            self.writeFiles(self.index.symbols[symbol], "symbol \(symbol)", &response, &sent)
        case (5, _)?:  // file_containing_extension: none of our files has extensions
            Self.writeError(.notFound, "extension not found", &response)
        case (6, let type)?:  // all_extension_numbers_of_type
            if self.index.symbols[type] == nil {
                Self.writeError(.notFound, "type not found: \(type)", &response)
            } else {
                response.message(5) { $0.string(1, type) }
            }
        case (7, _)?:  // list_services
            response.message(6) { list in
                for name in self.serviceNames { list.message(1) { $0.string(1, name) } }
            }
        default:
            Self.writeError(.invalidArgument, "unknown kind of request", &response)
        }
        return ByteBuffer(bytes: response.bytes)
    }

    /// The request goes back with its answer: clients could not parse what is no UTF-8.
    private static func text(_ bytes: some Collection<UInt8>) throws(RPCError) -> String {
        guard let text = String(validating: bytes, as: UTF8.self) else { throw Self.unparsable }
        return text
    }

    private static var unparsable: RPCError { RPCError(.internal, "cannot parse ServerReflectionRequest") }

    /// All names are ASCII. Others are unknown, whichever they are, and Swift takes the square of their length to look
    /// some of them up.
    private static func name(_ bytes: ArraySlice<UInt8>) throws(RPCError) -> String {
        let text = try Self.text(bytes)
        if bytes.allSatisfy({ $0 < 0x80 }) { return text }
        return String(decoding: bytes.map { $0 < 0x80 ? $0 : UInt8(ascii: "?") }, as: UTF8.self)
    }

    private func writeFiles(
        _ name: String?, _ what: String, _ response: inout ProtoWriter, _ sent: inout Set<String>
    ) {
        guard let name, self.index.files[name] != nil else {
            return Self.writeError(.notFound, "\(what) not found", &response)
        }
        // What was asked for is sent again if need be; only its dependencies are left out.
        var files = self.index.closure(of: name, without: sent.subtracting([name]))
        if files.isEmpty, let file = self.index.files[name] { files = [file] }
        sent.formUnion(files.map(\.name))
        response.message(4) { list in
            for file in files { list.bytes(1, file.bytes) }
        }
    }

    private static func writeError(_ code: RPCCode, _ message: String, _ response: inout ProtoWriter) {
        response.message(7) { error in
            error.varint(1, UInt64(code.rawValue))
            error.string(2, String(message.prefix(256)))
        }
    }
}
