import Testing

@testable import RPCTransport

@Suite struct RequestHeadTests {
    private static func parse(_ changes: [(String, String?)] = []) -> RequestHead.Outcome {
        var fields: [(String, String)] = [
            (":method", "POST"), (":scheme", "http"), (":path", "/a.B/C"), (":authority", "x"), ("te", "trailers"),
            ("content-type", "application/grpc"), ("user-agent", "tests"),
        ]
        for (name, _) in changes { fields.removeAll { $0.0 == name } }
        for case (let name, let value?) in changes { fields.append((name, value)) }
        var list = HeaderList()
        for (name, value) in fields { list.append(name.utf8, value.utf8) }
        return RequestHead.parse(list)
    }

    @Test func aCall() {
        guard case .call(let head) = Self.parse([("grpc-timeout", "5m"), ("x-own", "1")]) else {
            Issue.record("refused")
            return
        }
        #expect(head.list.bytes[head.path].elementsEqual("/a.B/C".utf8))
        #expect(head.timeoutNanoseconds == 5_000_000)
        #expect(Metadata(head.list).entries.map(\.name) == ["user-agent", "x-own"])
    }

    @Test(arguments: [
        ("application/grpc", true), ("application/grpc+proto", true), ("application/grpc;charset=utf-8", true),
        ("application/grpc+proto;x", true), ("application/grpc+json", false), ("application/grpc-web", false),
        ("application/grpc+protobuf", false), ("application/json", false), ("", false),
    ])
    func contentTypes(text: String, isAccepted: Bool) {
        switch Self.parse([("content-type", text)]) {
        case .call: #expect(isAccepted)
        case .refuse(let refusal):
            #expect(!isAccepted)
            #expect(refusal.httpStatus == .unsupportedMediaType)
        }
    }

    @Test(arguments: [
        (":method", "GET", RequestHead.HTTPStatus.methodNotAllowed, RPCCode.internal),
        ("grpc-timeout", "5 m", .badRequest, .internal),
        ("x-bin", "&", .badRequest, .internal),
        ("grpc-encoding", "br", .ok, .unimplemented),
    ])
    func refusals(name: String, value: String, httpStatus: RequestHead.HTTPStatus, code: RPCCode) {
        guard case .refuse(let refusal) = Self.parse([(name, value)]) else {
            Issue.record("accepted")
            return
        }
        #expect(refusal.httpStatus == httpStatus)
        #expect(refusal.error.code == code)
    }

    @Test(arguments: [("1", true), ("12", true), ("0", false)]) func retries(attempts: String, isRetry: Bool) {
        guard case .call(let head) = Self.parse([("grpc-previous-rpc-attempts", attempts)]) else {
            Issue.record("refused")
            return
        }
        #expect(head.isRetry == isRetry)
        #expect(Metadata(head.list).first("grpc-previous-rpc-attempts") == attempts)
    }

    @Test func reservedNamesAreNoMetadata() {
        let reserved = [
            "grpc-message-type", "grpc-status", "grpc-message", "grpc-accept-encoding", "grpc-anything", "host",
            "content-length", "grpc-encoding",
        ]
        guard case .call(let head) = Self.parse(reserved.map { ($0, "identity") } + [("x-own", "1")]) else {
            Issue.record("refused")
            return
        }
        #expect(Metadata(head.list).entries.map(\.name) == ["user-agent", "x-own"])
        // Nor can an application send them.
        var metadata = Metadata()
        for name in reserved + [":status", "te", "content-type"] { metadata.append(name, "1") }
        #expect(metadata.isEmpty)
    }

    @Test func encodings() {
        guard
            case .call(let head) = Self.parse([
                ("grpc-encoding", "deflate"), ("grpc-accept-encoding", "identity, gzip"),
            ])
        else {
            Issue.record("refused")
            return
        }
        #expect(head.compression == .deflate)
        #expect(head.acceptedCompression == .gzip)
        #expect(head.namesEncodings)
        guard case .call(let plain) = Self.parse([("grpc-encoding", "identity")]) else {
            Issue.record("refused")
            return
        }
        #expect(plain.compression == nil && plain.acceptedCompression == nil)
        // Several lines are one list.
        for lines in [["gzip", "deflate"], ["deflate", "gzip"], ["identity, deflate", "gzip", "br"]] {
            guard case .call(let head) = Self.parse(lines.map { ("grpc-accept-encoding", $0) }) else {
                Issue.record("refused")
                return
            }
            #expect(head.acceptedCompression == .gzip)
        }
    }

    @Test func missingPath() {
        guard case .refuse = Self.parse([(":path", nil)]) else {
            Issue.record("accepted")
            return
        }
    }
}
