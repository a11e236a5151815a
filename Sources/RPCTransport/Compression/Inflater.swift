import CZlib
import NIOCore

/// Takes one compressed message apart, and stops as soon as it turns out larger than allowed.
enum Inflater {
    enum Failure: Error {
        case tooLarge
        /// Not what the encoding promises, cut short, or with something behind its end.
        case malformed
        case outOfMemory
    }

    /// - Parameter limit: the most bytes that may come out. A bomb costs one byte more than that, never what it holds.
    static func inflate(
        _ message: ByteBuffer, _ compression: RPCCompression, limit: Int
    ) throws(Failure) -> ByteBuffer {
        var stream = z_stream()
        // 15: the largest window; 16 more: gzip's header and checksum in place of zlib's.
        let windowBits: Int32 =
            switch compression {
            case .gzip: 15 + 16
            case .deflate: 15
            }
        guard inflateInit2_(&stream, windowBits, ZLIB_VERSION, Int32(MemoryLayout<z_stream>.size)) == Z_OK else {
            throw .outOfMemory
        }
        defer { inflateEnd(&stream) }
        var output = ByteBufferAllocator().buffer(
            capacity: max(256, min(limit + 1, 4 * min(message.readableBytes, 1 << 24))))
        var result = Z_OK
        message.withUnsafeReadableBytes { input in
            // zlib never writes to its input.
            stream.next_in = UnsafeMutablePointer(mutating: input.baseAddress?.assumingMemoryBound(to: UInt8.self))
            stream.avail_in = UInt32(clamping: input.count)
            while result == Z_OK, output.readableBytes <= limit {
                if output.writableBytes == 0 {
                    output.reserveCapacity(minimumWritableBytes: min(output.capacity, 1 << 20))
                }
                let room = min(output.writableBytes, limit + 1 - output.readableBytes)
                output.writeWithUnsafeMutableBytes(minimumWritableBytes: 0) { target in
                    stream.next_out = target.baseAddress?.assumingMemoryBound(to: UInt8.self)
                    stream.avail_out = UInt32(clamping: room)
                    result = CZlib.inflate(&stream, Z_NO_FLUSH)
                    return room - Int(stream.avail_out)
                }
            }
        }
        if output.readableBytes > limit { throw .tooLarge }
        switch result {
        case Z_STREAM_END where stream.avail_in == 0: return output
        case Z_MEM_ERROR: throw .outOfMemory
        default: throw .malformed  // Z_DATA_ERROR, Z_NEED_DICT, Z_BUF_ERROR: the input ended early
        }
    }
}
