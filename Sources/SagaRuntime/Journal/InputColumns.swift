/// What a statement over many rows is given: its columns, each named once, with its type and how a row fills it.
///
/// The statement's text and its parameters are made from this one list, so that they can't part. The parameters are one
/// array a column, `$2` and up; `$1` is the instance in whose name the statement writes.
struct InputColumns<Row>: Sendable {
    struct Column: Sendable {
        var name: String
        /// The type in SQL of one value.
        var type: String
        var append: @Sendable ([Row], inout SQLParameters) -> Void

        static func text(_ name: String, _ value: @escaping @Sendable (Row) -> String) -> Column {
            Column(name: name, type: "text") { $1.append(array: $0.map(value)) }
        }
        static func optionalText(_ name: String, _ value: @escaping @Sendable (Row) -> String?) -> Column {
            Column(name: name, type: "text") { $1.append(array: $0.map(value)) }
        }
        /// A text that is NULL where it is empty.
        static func filledText(_ name: String, _ value: @escaping @Sendable (Row) -> String) -> Column {
            .optionalText(name) { row in
                let text = value(row)
                return text.isEmpty ? nil : text
            }
        }
        static func int(_ name: String, _ value: @escaping @Sendable (Row) -> Int) -> Column {
            Column(name: name, type: "int") { $1.append(array: $0.map { Int32(clamping: value($0)) }) }
        }
        static func time(_ name: String, _ value: @escaping @Sendable (Row) -> Timestamp) -> Column {
            Column(name: name, type: "timestamptz") { $1.append(array: $0.map(value)) }
        }
        static func optionalTime(_ name: String, _ value: @escaping @Sendable (Row) -> Timestamp?) -> Column {
            Column(name: name, type: "timestamptz") { $1.append(array: $0.map(value)) }
        }
        static func bool(_ name: String, _ value: @escaping @Sendable (Row) -> Bool) -> Column {
            Column(name: name, type: "bool") { $1.append(array: $0.map(value)) }
        }
        static func uuid(_ name: String, _ value: @escaping @Sendable (Row) -> String) -> Column {
            Column(name: name, type: "uuid") { $1.appendUUIDs($0.map(value)) }
        }
        static func bytes(_ name: String, _ value: @escaping @Sendable (Row) -> [UInt8]) -> Column {
            Column(name: name, type: "bytea") { $1.append(array: $0.map(value)) }
        }
        /// Bytes that are NULL where there are none.
        static func filledBytes(_ name: String, _ value: @escaping @Sendable (Row) -> [UInt8]) -> Column {
            Column(name: name, type: "bytea") { rows, parameters in
                parameters.append(
                    array: rows.map { row -> [UInt8]? in
                        let bytes = value(row)
                        return bytes.isEmpty ? nil : bytes
                    })
            }
        }
    }

    let columns: [Column]

    init(_ columns: [Column]) { self.columns = columns }

    /// The rows as a relation to select from, with `ordinal`, their number in the flush.
    func relation(_ alias: String) -> String {
        let arrays = self.columns.indices.map { "$\($0 + 2)::\(self.columns[$0].type)[]" }
        let names = self.columns.map(\.name)
        return """
            unnest(\(arrays.joined(separator: ", ")))
                WITH ORDINALITY AS \(alias)(\(names.joined(separator: ", ")), ordinal)
            """
    }

    func parameters(owner: Int64, _ rows: [Row]) -> SQLParameters {
        var parameters = SQLParameters()
        parameters.append(owner)
        for column in self.columns { column.append(rows, &parameters) }
        return parameters
    }
}
