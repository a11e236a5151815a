import CNghttp2

/// Header fields made of constants. nghttp2 doesn't copy them: it may keep the pointers until the block is sent.
///
/// `@unchecked Sendable`: the pointers lead to string literals, which nobody can change.
struct ConstantFields: @unchecked Sendable {
    let values: [nghttp2_nv]

    init(_ fields: [(StaticString, StaticString)]) {
        self.values = fields.map { name, value in
            nghttp2_nv(
                name: UnsafeMutablePointer(mutating: name.utf8Start),
                value: UnsafeMutablePointer(mutating: value.utf8Start),
                namelen: name.utf8CodeUnitCount, valuelen: value.utf8CodeUnitCount,
                flags: UInt8(NGHTTP2_NV_FLAG_NO_COPY_NAME.rawValue | NGHTTP2_NV_FLAG_NO_COPY_VALUE.rawValue))
        }
    }

    static let none = ConstantFields([])
    static let responseGRPC = Self.response(.grpc, nil, listsEncodings: false)

    /// Response-Headers. `compression`: what messages with the flag are compressed with.
    @inline(__always)
    static func response(
        _ contentType: RequestHead.ContentType, _ compression: RPCCompression?, listsEncodings: Bool
    ) -> ConstantFields {
        var index = listsEncodings ? 1 : 0
        switch contentType {
        case .grpc: break
        case .grpcProto: index += 2
        }
        switch compression {
        case nil: break
        case .gzip: index += 4
        case .deflate: index += 8
        }
        return Self.responses[index]
    }

    /// By the index that `response` makes.
    private static let responses: [ConstantFields] = (0..<12).map { index in
        var fields: [(StaticString, StaticString)] = [
            (":status", "200"),
            ("content-type", index & 2 == 0 ? "application/grpc" : "application/grpc+proto"),
        ]
        if index & 1 != 0 { fields.append(("grpc-accept-encoding", RPCCompression.accepted)) }
        if index >> 2 == 1 { fields.append(("grpc-encoding", "gzip")) }
        if index >> 2 == 2 { fields.append(("grpc-encoding", "deflate")) }
        return ConstantFields(fields)
    }

    static let badRequest = ConstantFields([(":status", "400"), ("content-type", "application/grpc")])
    static let methodNotAllowed = ConstantFields([
        (":status", "405"), ("content-type", "application/grpc"), ("allow", "POST"),
    ])
    static let unsupportedMediaType = ConstantFields([
        (":status", "415"), ("content-type", "text/plain; charset=utf-8"),
    ])
    static let trailersOK = ConstantFields([("grpc-status", "0")])
    /// Pseudo headers come first (RFC 9113, section 8.3): the list goes on with `:path`.
    static let request = ConstantFields([(":method", "POST"), (":scheme", "http")])
    static let requestOverTLS = ConstantFields([(":method", "POST"), (":scheme", "https")])

    /// Calls `body` with these fields and those of `list` behind them, in nghttp2's form. The pointers to the list's
    /// fields are good for the call only; nghttp2 copies those.
    func with<Result>(_ list: HeaderList?, _ body: (UnsafePointer<nghttp2_nv>?, Int) -> Result) -> Result {
        guard let list, !list.isEmpty else {
            return self.values.withUnsafeBufferPointer { body($0.baseAddress, $0.count) }
        }
        return withUnsafeTemporaryAllocation(of: nghttp2_nv.self, capacity: self.values.count + list.fields.count) {
            target in
            var count = 0
            for value in self.values {
                target.initializeElement(at: count, to: value)
                count += 1
            }
            return list.bytes.withUnsafeBufferPointer { base in
                for field in list.fields {
                    let (name, value) = HeaderList.slices(of: field, in: base)
                    guard let nameStart = name.baseAddress else { continue }
                    let isSecret = equal(name, "authorization") || equal(name, "x-service-token")
                    target.initializeElement(
                        at: count,
                        to: nghttp2_nv(
                            name: UnsafeMutablePointer(mutating: nameStart),
                            value: UnsafeMutablePointer(mutating: value.baseAddress ?? nameStart),
                            namelen: name.count, valuelen: value.count,
                            flags: isSecret ? UInt8(NGHTTP2_NV_FLAG_NO_INDEX.rawValue) : 0))
                    count += 1
                }
                return body(UnsafePointer(target.baseAddress), count)
            }
        }
    }
}
