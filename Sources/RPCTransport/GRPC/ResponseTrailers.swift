/// The end of a response as header fields.
enum ResponseTrailers {
    /// Past this, peers with the usual limit of 8 KiB for a header block would drop the whole answer (they are told
    /// the status without the details then).
    static let detailsLimit = 6144

    static func list(status: RPCError?, metadata: Metadata) -> HeaderList {
        var list = HeaderList()
        guard let status else {
            list.append("grpc-status", "0")
            list.append(contentsOf: metadata.list)
            return list
        }
        list.append("grpc-status", "\(status.code.rawValue)".utf8)
        if !status.message.isEmpty { list.append("grpc-message", StatusMessage.encode(status.message, limit: 1536)) }
        if !status.details.isEmpty {
            let details = Base64.encode(status.details)
            if details.count <= Self.detailsLimit { list.append("grpc-status-details-bin", details) }
        }
        list.append(contentsOf: status.metadata.list)
        list.append(contentsOf: metadata.list)
        return list
    }
}
