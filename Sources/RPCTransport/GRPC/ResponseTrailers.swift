/// The end of a response as header fields.
enum ResponseTrailers {
    /// Past this, peers with the usual limit of 8 KiB for a header block would drop the whole answer (they are told
    /// the status without the details then).
    static let detailsLimit = 6144
    static let messageLimit = 1536
    /// Room for the constant fields around them: `:status`, `content-type`, and the two on encodings.
    static let constantBytes = 240

    /// - Parameter limit: what the peer reads of a header block (SETTINGS_MAX_HEADER_LIST_SIZE). The status comes
    ///   first, then as much of its message as there is room for; details and metadata that don't fit are left out.
    static func list(status: RPCError?, metadata: Metadata, limit: Int = .max) -> HeaderList {
        let limit = limit - Self.constantBytes
        var list = HeaderList()
        guard let status else {
            list.append("grpc-status", "0")
            list.append(contentsOf: metadata.list.fitting(in: limit - list.listBytes))
            return list
        }
        list.append("grpc-status", "\(status.code.rawValue)".utf8)
        let messageLimit = min(Self.messageLimit, limit - list.listBytes - 44)
        if !status.message.isEmpty, messageLimit > 0 {
            list.append("grpc-message", StatusMessage.encode(status.message, limit: messageLimit))
        }
        if !status.details.isEmpty {
            let details = Base64.encode(status.details)
            if details.count <= min(Self.detailsLimit, limit - list.listBytes - 55) {
                list.append("grpc-status-details-bin", details)
            }
        }
        list.append(contentsOf: status.metadata.list.fitting(in: limit - list.listBytes))
        list.append(contentsOf: metadata.list.fitting(in: limit - list.listBytes))
        return list
    }
}
