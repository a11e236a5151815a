import Dispatch
import Foundation
import Glibc
import Synchronization

/// Text on its way to a descriptor, in order, written by a thread of its own: nobody who says something waits for
/// whoever reads it.
///
/// What finds no room is dropped and counted, and a line says how much once the rest has been written. The same holds for
/// what can't be written: the reader is gone (EPIPE), the disk is full (ENOSPC).
final class OutputQueue: Sendable {
    /// Of what waits and what is being written. A server that logs every step of 1,000 sagas a second fills it in half a
    /// second.
    static let maximumBytes = 2 << 20
    /// Of these, what only important lines may use, so that a flood leaves room for them.
    static let reservedBytes = 512 << 10

    /// How long the thread gathers lines once there is one: to be woken for each would cost more than to write it.
    private static let gathering: useconds_t = 2_000

    /// A pipe takes up to this many bytes in one piece (pipe(7), PIPE_BUF), so that lines of several processes don't mix.
    private static let pieceBytes = 4096

    private struct State {
        /// Whole lines.
        var waiting: [UInt8] = []
        /// What the thread has taken and not yet written.
        var bytesBeingWritten = 0
        /// Lines that found no room since the thread last took what waits.
        var dropped = 0
        var isThreadIdle = false

        var isEmpty: Bool { self.waiting.isEmpty && self.bytesBeingWritten == 0 && self.dropped == 0 }
    }

    private let descriptor: Int32
    private let notice: (@Sendable (_ dropped: Int) -> String)?
    private let state = Mutex(State())
    private let wake = DispatchSemaphore(value: 0)
    private let allDropped = Atomic<Int>(0)

    /// Starts the thread, which lives as long as the process.
    ///
    /// - Parameter notice: makes the line that says how many were dropped; it ends with a line feed. `nil`: none.
    init(descriptor: Int32, notice: (@Sendable (_ dropped: Int) -> String)? = nil) {
        self.descriptor = descriptor
        self.notice = notice
        let thread = Thread { self.writeForEver() }
        thread.name = "output-\(descriptor)"
        thread.stackSize = 1 << 18
        thread.start()
    }

    /// Lines that were dropped since the start.
    var dropped: Int { self.allDropped.load(ordering: .relaxed) }

    /// Takes whole lines, or drops them. Never waits.
    func append(_ lines: String, isImportant: Bool = false) {
        var lines = lines
        let wakes = lines.withUTF8 { bytes in
            self.state.withLock { state in
                let room = isImportant ? Self.maximumBytes : Self.maximumBytes - Self.reservedBytes
                if state.waiting.count + state.bytesBeingWritten + bytes.count <= room {
                    state.waiting.append(contentsOf: bytes)
                } else {
                    let count = Self.lineCount(bytes)
                    state.dropped += count
                    self.allDropped.add(count, ordering: .relaxed)
                }
                defer { state.isThreadIdle = false }
                return state.isThreadIdle
            }
        }
        if wakes { self.wake.signal() }
    }

    /// Waits until what was appended is written, or given up, but no longer than `limit`.
    func flush(within limit: Duration) async {
        let end = ContinuousClock.now + limit
        // In a task of its own: the last words of a cancelled one are to be heard too.
        await Task {
            while ContinuousClock.now < end, !self.state.withLock({ $0.isEmpty }) {
                try? await Task.sleep(for: .milliseconds(2))
            }
        }.value
    }

    // MARK: The thread

    private func writeForEver() {
        var writer = Writer(descriptor: self.descriptor, notice: self.notice)
        while true {
            let (bytes, droppedAfter) = self.take()
            let lost = writer.write(bytes, droppedAfter: droppedAfter)
            self.allDropped.add(lost, ordering: .relaxed)
            self.state.withLock { $0.bytesBeingWritten = 0 }
        }
    }

    /// What waits, and how many lines found no room after it.
    private func take() -> (bytes: [UInt8], droppedAfter: Int) {
        while true {
            let taken = self.state.withLock { state -> ([UInt8], Int)? in
                if state.waiting.isEmpty, state.dropped == 0 {
                    state.isThreadIdle = true
                    return nil
                }
                defer {
                    state.bytesBeingWritten = state.waiting.count
                    state.waiting = []
                    state.dropped = 0
                }
                return (state.waiting, state.dropped)
            }
            if let taken { return taken }
            self.wake.wait()
            usleep(Self.gathering)
        }
    }

    fileprivate static func lineCount(_ bytes: some Sequence<UInt8>) -> Int {
        bytes.reduce(0) { $1 == UInt8(ascii: "\n") ? $0 + 1 : $0 }
    }

    // MARK: Writing

    /// Knows what has been dropped and not yet told.
    private struct Writer {
        let descriptor: Int32
        let notice: (@Sendable (Int) -> String)?
        private var untold = 0
        /// The last write ended in the midst of a line.
        private var isMidLine = false

        init(descriptor: Int32, notice: (@Sendable (Int) -> String)?) {
            self.descriptor = descriptor
            self.notice = notice
        }

        /// - Returns: how many lines could not be written.
        mutating func write(_ bytes: [UInt8], droppedAfter: Int) -> Int {
            var lost = 0
            // While nothing can be written, this is also the attempt that shows that something can again.
            if self.tell() {
                let rest = bytes.withUnsafeBytes { self.write($0[...]) }
                lost = OutputQueue.lineCount(bytes[rest...])
            } else {
                lost = OutputQueue.lineCount(bytes)
            }
            self.untold += lost + droppedAfter
            if lost == 0 { _ = self.tell() }
            return lost
        }

        /// Says how many lines were dropped. False: it can't be said now.
        private mutating func tell() -> Bool {
            guard self.untold > 0, let notice = self.notice else { return true }
            let line = Array((self.isMidLine ? "\n" : "").utf8) + Array(notice(self.untold).utf8)
            guard line.withUnsafeBytes({ self.write($0[...]) }) == line.count else { return false }
            self.untold = 0
            return true
        }

        /// Writes in pieces of whole lines.
        ///
        /// - Returns: where the first line begins that was not written whole.
        private mutating func write(_ bytes: Slice<UnsafeRawBufferPointer>) -> Int {
            var start = bytes.startIndex
            while start < bytes.endIndex {
                let end = Self.endOfPiece(bytes[start...])
                let written = self.writePiece(UnsafeRawBufferPointer(rebasing: bytes[start..<end]))
                if written > 0 { self.isMidLine = bytes[start + written - 1] != UInt8(ascii: "\n") }
                guard written == end - start else {
                    return bytes[start..<start + written].lastIndex(of: UInt8(ascii: "\n")).map { $0 + 1 } ?? start
                }
                start = end
            }
            return bytes.endIndex
        }

        /// After the last line that ends within a piece's length; a longer line is a piece of its own.
        private static func endOfPiece(_ rest: Slice<UnsafeRawBufferPointer>) -> Int {
            let lineFeed = UInt8(ascii: "\n")
            if let last = rest.prefix(OutputQueue.pieceBytes).lastIndex(of: lineFeed) { return last + 1 }
            return rest.firstIndex(of: lineFeed).map { $0 + 1 } ?? rest.endIndex
        }

        /// write(2) until all is written or it fails. EINTR: again. EAGAIN: once there is room. EPIPE: nobody reads any
        /// more; ENOSPC, EDQUOT, EFBIG, EIO: the disk takes nothing; EBADF: it was closed.
        ///
        /// - Returns: how many bytes were written.
        private func writePiece(_ piece: UnsafeRawBufferPointer) -> Int {
            var count = 0
            while count < piece.count, let base = piece.baseAddress {
                let written = Glibc.write(self.descriptor, base + count, piece.count - count)
                if written >= 0 {
                    count += written
                } else if errno == EAGAIN {
                    var state = pollfd(fd: self.descriptor, events: Int16(POLLOUT), revents: 0)
                    poll(&state, 1, -1)
                } else if errno != EINTR {
                    break
                }
            }
            return count
        }
    }
}
