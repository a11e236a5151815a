import CZlib
import NIOCore

/// Compresses one message.
enum Deflater {
    /// Speed before size: level 1 costs about a third of zlib's default and gives away a tenth.
    private static let level: Int32 = 1

    /// Nil if there is no memory for it: the message goes as it is then.
    static func deflate(_ message: ByteBuffer, _ compression: RPCCompression) -> ByteBuffer? {
        var stream = z_stream()
        // A window of the message's own size will do: zlib's default takes 256 KiB for each, however small. (8 is a
        // window that zlib promises and doesn't keep.)
        var windowBits: Int32 = 9
        while windowBits < 15, 1 << Int(windowBits) < message.readableBytes { windowBits += 1 }
        let format: Int32 =
            switch compression {
            case .gzip: 16
            case .deflate: 0
            }
        guard
            deflateInit2_(
                &stream, Self.level, Z_DEFLATED, windowBits + format, min(8, windowBits - 6), Z_DEFAULT_STRATEGY,
                ZLIB_VERSION, Int32(MemoryLayout<z_stream>.size)) == Z_OK
        else { return nil }
        defer { deflateEnd(&stream) }
        let bound = Int(deflateBound(&stream, UInt(message.readableBytes)))
        var output = ByteBufferAllocator().buffer(capacity: bound)
        var result = Z_OK
        message.withUnsafeReadableBytes { input in
            // zlib never writes to its input.
            stream.next_in = UnsafeMutablePointer(mutating: input.baseAddress?.assumingMemoryBound(to: UInt8.self))
            stream.avail_in = UInt32(clamping: input.count)
            output.writeWithUnsafeMutableBytes(minimumWritableBytes: bound) { target in
                stream.next_out = target.baseAddress?.assumingMemoryBound(to: UInt8.self)
                stream.avail_out = UInt32(clamping: target.count)
                result = CZlib.deflate(&stream, Z_FINISH)
                return Int(stream.total_out)
            }
        }
        return result == Z_STREAM_END ? output : nil
    }
}
