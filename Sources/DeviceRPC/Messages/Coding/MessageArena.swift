import Glibc
import Proto

/// Memory for one conversion between wire bytes and Swift values: a bump allocator with a cap, which protobuf-c and the
/// conversion code take all their memory from, and which is emptied at once. Single allocations are never freed.
///
/// Every thread keeps one arena with one block for reuse. An arena never leaves the closure of `withArena`.
final class MessageArena {
    private static let blockSize = 32 * 1024
    private static let alignment = 8

    /// The block that is kept for the next use.
    private let firstBlock = UnsafeMutableRawPointer.allocate(byteCount: blockSize, alignment: 16)
    /// The blocks behind it, given back after each use.
    private var furtherBlocks: [UnsafeMutableRawPointer] = []
    /// The free rest of the newest block.
    private var free: UnsafeMutableRawPointer
    private var freeBytes = blockSize
    /// What may still be allocated in all.
    private var remainingBytes = Int.max

    private init() {
        self.free = self.firstBlock
    }

    deinit {
        for block in self.furtherBlocks { block.deallocate() }
        self.firstBlock.deallocate()
    }

    /// Memory of `size` bytes, aligned for every C type that a message holds; `nil` once the cap would be passed.
    func allocate(upToCap size: Int) -> UnsafeMutableRawPointer? {
        guard size >= 0, size <= Int(Int32.max) else { return nil }
        let rounded = (size + Self.alignment - 1) & ~(Self.alignment - 1)
        guard rounded <= self.remainingBytes else { return nil }
        self.remainingBytes -= rounded
        if rounded > self.freeBytes {
            self.freeBytes = max(Self.blockSize, rounded)
            self.free = .allocate(byteCount: self.freeBytes, alignment: 16)
            self.furtherBlocks.append(self.free)
        }
        let result = self.free
        self.free += rounded
        self.freeBytes -= rounded
        return result
    }

    /// Runs `body` with this thread's arena, emptied before and after. `body` must not suspend (it cannot: it is not
    /// async) nor let anything that points into the arena out.
    ///
    /// - Parameter cap: how many bytes may be allocated in all.
    static func withArena<Result, Failure: Error>(
        cap: Int = .max, _ body: (MessageArena) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        let arena = Self.takeFromThread() ?? MessageArena()
        arena.remainingBytes = cap
        defer {
            arena.reset()
            Self.giveToThread(arena)
        }
        return try body(arena)
    }

    private func reset() {
        for block in self.furtherBlocks { block.deallocate() }
        self.furtherBlocks.removeAll()
        self.free = self.firstBlock
        self.freeBytes = Self.blockSize
    }

    // MARK: The thread's own arena

    /// The arena is taken out of the slot while it is used, so that a conversion inside a conversion gets another one.
    private static let threadKey: pthread_key_t? = {
        var key = pthread_key_t()
        let result = pthread_key_create(&key) { Unmanaged<MessageArena>.fromOpaque($0!).release() }
        return result == 0 ? key : nil
    }()

    private static func takeFromThread() -> MessageArena? {
        guard let key = Self.threadKey, let pointer = pthread_getspecific(key) else { return nil }
        pthread_setspecific(key, nil)
        return Unmanaged<MessageArena>.fromOpaque(pointer).takeRetainedValue()
    }

    private static func giveToThread(_ arena: MessageArena) {
        guard let key = Self.threadKey, pthread_getspecific(key) == nil else { return }
        let reference = Unmanaged.passRetained(arena)
        if pthread_setspecific(key, reference.toOpaque()) != 0 { reference.release() }
    }
}

// MARK: - Unpacking

extension MessageArena {
    /// Unpacks validated bytes. The result lives as long as the arena's use; `nil`: protobuf-c refused the bytes, or the
    /// cap was reached.
    func unpack(
        _ bytes: UnsafeRawBufferPointer, as descriptor: UnsafePointer<ProtobufCMessageDescriptor>
    ) -> UnsafeMutablePointer<ProtobufCMessage>? {
        var allocator = ProtobufCAllocator(
            alloc: { context, size in
                guard let context else { return nil }
                return Unmanaged<MessageArena>.fromOpaque(context).takeUnretainedValue().allocate(upToCap: size)
            },
            free: { _, _ in },
            allocator_data: Unmanaged.passUnretained(self).toOpaque())
        return protobuf_c_message_unpack(
            descriptor, &allocator, bytes.count, bytes.baseAddress?.assumingMemoryBound(to: UInt8.self))
    }
}

// MARK: - Building messages

extension MessageArena {
    /// Memory for `count` values, for messages that we build ourselves (no cap is set then). It holds anything: the caller
    /// sets all of it.
    func allocate<Value>(_ type: Value.Type, count: Int = 1) -> UnsafeMutablePointer<Value> {
        let size = MemoryLayout<Value>.stride * max(count, 1)
        guard let memory = self.allocate(upToCap: size) else {
            // Only a single value beyond 2 GiB gets here: no message of ours can be that large.
            preconditionFailure("a message to be encoded is larger than 2 GiB")
        }
        return memory.bindMemory(to: Value.self, capacity: max(count, 1))
    }

    /// A C string; NUL characters, which it could not hold, are left out.
    func string(_ text: String) -> UnsafeMutablePointer<CChar> {
        var text = text
        return text.withUTF8 { utf8 in
            let result = self.allocate(CChar.self, count: utf8.count + 1)
            guard let source = utf8.baseAddress, memchr(source, 0, utf8.count) == nil else {
                var length = 0
                for byte in utf8 where byte != 0 {
                    result[length] = CChar(bitPattern: byte)
                    length += 1
                }
                result[length] = 0
                return result
            }
            memcpy(result, source, utf8.count)
            result[utf8.count] = 0
            return result
        }
    }

    func strings(_ texts: [String]) -> UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>? {
        guard !texts.isEmpty else { return nil }
        let result = self.allocate(UnsafeMutablePointer<CChar>?.self, count: texts.count)
        for (index, text) in texts.enumerated() { result[index] = self.string(text) }
        return result
    }

    func bytes(_ bytes: [UInt8]) -> ProtobufCBinaryData {
        guard !bytes.isEmpty else { return ProtobufCBinaryData(len: 0, data: nil) }
        let result = self.allocate(UInt8.self, count: bytes.count)
        result.update(from: bytes, count: bytes.count)
        return ProtobufCBinaryData(len: bytes.count, data: result)
    }
}
