import CLibpq
import Glibc

/// The owner of one `PGresult`: what is needed of it is copied out, then it is freed.
struct LibpqResult: ~Copyable {
    private let pointer: OpaquePointer

    /// Takes ownership of `pointer`.
    init(owning pointer: OpaquePointer) { self.pointer = pointer }

    deinit { PQclear(self.pointer) }

    var status: ExecStatusType { PQresultStatus(self.pointer) }

    /// The command tag, e.g. `COMMIT`.
    var commandTag: String { PQcmdStatus(self.pointer).map { String(cString: $0) } ?? "" }

    /// Copies all rows into one buffer of ours.
    func rows() throws(PostgresError) -> SQLRows {
        let rowCount = PQntuples(self.pointer)
        let columnCount = PQnfields(self.pointer)
        let affectedRows = Self.number(PQcmdTuples(self.pointer))
        if columnCount == 0 {
            return SQLRows(
                buffer: affectedRows == 0 && rowCount == 0
                    ? .empty
                    : ResultBuffer(rowCount: 0, columnTypes: [], affectedRows: affectedRows, bytes: []))
        }
        var types: [UInt32] = []
        types.reserveCapacity(Int(columnCount))
        for column in 0..<columnCount {
            // 0 is text: only a statement that we did not send, or a bug.
            guard PQfformat(self.pointer, column) == 1 else { throw .decoding("column \(column) is not binary") }
            types.append(PQftype(self.pointer, column))
        }
        // Not below: an array of no capacity that is made unfilled writes to the empty array that all threads share.
        guard rowCount > 0 else {
            return SQLRows(
                buffer: ResultBuffer(rowCount: 0, columnTypes: types, affectedRows: affectedRows, bytes: []))
        }
        var size = Int(rowCount) * Int(columnCount) * ResultBuffer.cellSize
        let dataStart = size
        for row in 0..<rowCount {
            for column in 0..<columnCount { size += Int(PQgetlength(self.pointer, row, column)) }
        }
        guard size <= Int(Int32.max) else { throw .decoding("the result is larger than 2 GiB") }
        let pointer = self.pointer
        let bytes = [UInt8](unsafeUninitializedCapacity: size) { buffer, initialized in
            let raw = UnsafeMutableRawBufferPointer(buffer)
            var cell = 0
            var offset = dataStart
            for row in 0..<rowCount {
                for column in 0..<columnCount {
                    var length = PQgetlength(pointer, row, column)
                    if length == 0 && PQgetisnull(pointer, row, column) == 1 { length = -1 }
                    raw.storeBytes(of: Int32(truncatingIfNeeded: offset), toByteOffset: cell, as: Int32.self)
                    raw.storeBytes(of: length, toByteOffset: cell + 4, as: Int32.self)
                    cell += ResultBuffer.cellSize
                    if length > 0, let base = raw.baseAddress, let value = PQgetvalue(pointer, row, column) {
                        memcpy(base + offset, value, Int(length))
                        offset += Int(length)
                    }
                }
            }
            initialized = size
        }
        return SQLRows(
            buffer: ResultBuffer(rowCount: Int(rowCount), columnTypes: types, affectedRows: affectedRows, bytes: bytes))
    }

    /// The server's (or libpq's) error.
    func error(queryIndex: Int?) -> PostgresError {
        PostgresError(
            .server, self.field("M") ?? Self.text(PQresultErrorMessage(self.pointer)), sqlstate: self.field("C"),
            detail: self.field("D"), constraint: self.field("n"), queryIndex: queryIndex)
    }

    /// The session ends with this error (FATAL, PANIC), or libpq itself made it, which has no severity.
    var endsSession: Bool { self.field("V") != "ERROR" }

    /// - Parameter code: one of libpq-fe.h's `PG_DIAG_…` characters.
    private func field(_ code: Unicode.Scalar) -> String? {
        PQresultErrorField(self.pointer, Int32(code.value)).map { String(cString: $0) }
    }

    private static func text(_ message: UnsafeMutablePointer<CChar>?) -> String {
        message.map { String(cString: $0).trimmingASCIIWhitespace() } ?? "unknown error"
    }

    private static func number(_ text: UnsafeMutablePointer<CChar>?) -> Int {
        guard let text else { return 0 }
        return Int(strtol(text, nil, 10))
    }
}
