/// The rows that one statement returned, copied out of libpq's memory into one buffer of their own.
public struct SQLRows: Sendable, RandomAccessCollection {
    let buffer: ResultBuffer

    /// How many rows an INSERT, UPDATE, DELETE or MERGE touched, or a SELECT returned; 0 for other commands.
    public var affectedRows: Int { self.buffer.affectedRows }
    /// How many columns each row has.
    public var columnCount: Int { self.buffer.columnCount }

    public var startIndex: Int { 0 }
    public var endIndex: Int { self.buffer.rowCount }
    public subscript(position: Int) -> SQLRow {
        precondition(position >= 0 && position < self.buffer.rowCount, "row index out of range")
        return SQLRow(buffer: self.buffer, row: position)
    }

    /// The only row; throws `decoding` if there is none or more than one.
    public func single() throws(PostgresError) -> SQLRow {
        guard self.count == 1 else { throw .decoding("expected one row, got \(self.count)") }
        return SQLRow(buffer: self.buffer, row: 0)
    }
}

/// The bytes behind `SQLRows`: per cell its offset and length (-1 for NULL) as `Int32`, then the cells' bytes.
final class ResultBuffer: Sendable {
    let rowCount: Int
    let columnCount: Int
    let affectedRows: Int
    let columnTypes: [UInt32]
    let bytes: [UInt8]

    static let empty = ResultBuffer(rowCount: 0, columnTypes: [], affectedRows: 0, bytes: [])

    init(rowCount: Int, columnTypes: [UInt32], affectedRows: Int, bytes: [UInt8]) {
        self.rowCount = rowCount
        self.columnCount = columnTypes.count
        self.columnTypes = columnTypes
        self.affectedRows = affectedRows
        self.bytes = bytes
    }

    static let cellSize = 8
}
