import Proto

/// The files of all services that are served, with what they import: what server reflection answers from.
public enum DescriptorSet {
    /// A serialised `google.protobuf.FileDescriptorSet`.
    public static var bytes: [UInt8] {
        var length = 0
        let first = devicerpc_descriptor_set(&length)
        return Array(UnsafeBufferPointer(start: first, count: length))
    }
}
