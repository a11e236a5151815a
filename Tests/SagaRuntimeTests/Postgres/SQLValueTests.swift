import SagaRuntime
import TestSupport
import Testing

/// Every type that can be sent comes back as it was.
@Suite struct SQLValueTests {
    /// Sends `parameters` and returns `SELECT $1, $2, …`.
    private func echo(_ parameters: SQLParameters, casts: [String] = []) async throws -> SQLRow {
        let connection = try await TestDatabase.make().connect()
        let columns = (1...parameters.count).map { "$\($0)" } + casts
        let statement = SQLStatement("echo", "SELECT \(columns.joined(separator: ", "))")
        return try await connection.run(SQLQuery(statement, parameters)).single()
    }

    @Test func singleValues() async throws {
        var parameters = SQLParameters()
        parameters.append("Grüße 🙂")
        parameters.append("")
        parameters.append(Int16.min)
        parameters.append(Int32.max)
        parameters.append(Int64.min)
        parameters.append(true)
        parameters.append(-1.5)
        parameters.append([0, 1, 255] as [UInt8])
        parameters.append([] as [UInt8])
        parameters.append(Timestamp(microseconds: 1_730_188_800_123_456))
        parameters.append(Timestamp(microseconds: -1))
        parameters.append(Timestamp.infinity)
        parameters.append(uuid: "0188B5A2-1c5e-7d4f-9f6e-0a1b2c3d4e5f")
        let row = try await self.echo(parameters)
        #expect(try row.text(0) == "Grüße 🙂")
        #expect(try row.text(1) == "")
        #expect(try row.int16(2) == .min)
        #expect(try row.int32(3) == .max)
        #expect(try row.int64(4) == .min)
        #expect(try row.bool(5))
        #expect(try row.double(6) == -1.5)
        #expect(try row.bytes(7) == [0, 1, 255])
        #expect(try row.bytes(8) == [])
        #expect(try row.timestamp(9) == Timestamp(microseconds: 1_730_188_800_123_456))
        #expect(try row.timestamp(10) == Timestamp(microseconds: -1))
        #expect(try row.timestamp(11) == .infinity)
        #expect(try row.uuid(12) == "0188b5a2-1c5e-7d4f-9f6e-0a1b2c3d4e5f")
        #expect((0..<13).allSatisfy { !row.isNull($0) })
    }

    @Test func nulls() async throws {
        var parameters = SQLParameters()
        parameters.append(String?.none)
        parameters.append(Int32?.none)
        parameters.append(Int64?.none)
        parameters.append([UInt8]?.none)
        parameters.append(Timestamp?.none)
        parameters.append(uuid: String?.none)
        let row = try await self.echo(parameters)
        #expect(try row.optionalText(0) == nil)
        #expect(try row.optionalInt32(1) == nil)
        #expect(try row.optionalInt64(2) == nil)
        #expect(try row.optionalBytes(3) == nil)
        #expect(try row.optionalTimestamp(4) == nil)
        #expect(try row.optionalUUID(5) == nil)
        for column in 0..<6 { #expect(row.isNull(column)) }
        #expect(throws: PostgresError.self) { try row.text(0) }
    }

    @Test func arrays() async throws {
        let uuids = ["0188b5a2-1c5e-7d4f-9f6e-0a1b2c3d4e5f", "ffffffff-ffff-ffff-ffff-ffffffffffff"]
        var parameters = SQLParameters()
        parameters.append(array: ["a", "", "ü,\"{}"])
        parameters.append(array: ["a", nil])
        parameters.append(array: [1, -2] as [Int32])
        parameters.append(array: [1, nil] as [Int32?])
        parameters.append(array: [1, .max] as [Int64])
        parameters.append(array: [nil, 2] as [Int64?])
        parameters.append(array: [true, false])
        parameters.append(array: [[1], []] as [[UInt8]])
        parameters.append(array: [[1], nil] as [[UInt8]?])
        parameters.append(array: [Timestamp(milliseconds: 5)])
        parameters.append(array: [nil, Timestamp(milliseconds: 5)])
        parameters.appendUUIDs(uuids)
        let row = try await self.echo(parameters)
        #expect(try row.textArray(0) == ["a", "", "ü,\"{}"])
        #expect(try row.textArrayWithNulls(1) == ["a", nil])
        #expect(try row.int32Array(2) == [1, -2])
        #expect(try row.int32ArrayWithNulls(3) == [1, nil])
        #expect(try row.int64Array(4) == [1, .max])
        #expect(try row.int64ArrayWithNulls(5) == [nil, 2])
        #expect(try row.boolArray(6) == [true, false])
        #expect(try row.bytesArray(7) == [[1], []])
        #expect(try row.bytesArrayWithNulls(8) == [[1], nil])
        #expect(try row.timestampArray(9) == [Timestamp(milliseconds: 5)])
        #expect(try row.timestampArrayWithNulls(10) == [nil, Timestamp(milliseconds: 5)])
        #expect(try row.uuidArray(11) == uuids)
        #expect(throws: PostgresError.self) { try row.textArray(1) }
    }

    @Test func emptyArrays() async throws {
        var parameters = SQLParameters()
        parameters.append(array: [String]())
        parameters.append(array: [String?]())
        parameters.append(array: [Int32]())
        parameters.append(array: [Int64]())
        parameters.append(array: [Bool]())
        parameters.append(array: [[UInt8]]())
        parameters.append(array: [Timestamp]())
        parameters.appendUUIDs([])
        let row = try await self.echo(parameters)
        #expect(try row.textArray(0) == [])
        #expect(try row.textArrayWithNulls(1) == [])
        #expect(try row.int32Array(2) == [])
        #expect(try row.int64Array(3) == [])
        #expect(try row.boolArray(4) == [])
        #expect(try row.bytesArray(5) == [])
        #expect(try row.timestampArray(6) == [])
        #expect(try row.uuidArray(7) == [])
    }

    @Test func typesOfTheServerThatReadAsOurs() async throws {
        var parameters = SQLParameters()
        parameters.append("x")
        let row = try await self.echo(
            parameters,
            casts: [
                "'{\"a\": 1}'::jsonb", "'[1]'::json", "'v'::varchar", "'n'::name", "7::int2", "8::int4", "9::oid",
                "pg_current_xact_id()", "1.5::float4", "'{{1,2},{3,4}}'::int4[]", "'-infinity'::timestamptz",
                "1.5::numeric",
            ])
        #expect(try row.text(1) == #"{"a": 1}"#)
        #expect(try row.text(2) == "[1]")
        #expect(try row.text(3) == "v")
        #expect(try row.text(4) == "n")
        #expect(try row.int64(5) == 7)
        #expect(try row.int32(5) == 7)
        #expect(try row.int64(6) == 8)
        #expect(try row.int64(7) == 9)
        #expect(try row.int64(8) > 0)
        #expect(try row.double(9) == 1.5)
        #expect(throws: PostgresError.self) { try row.int32Array(10) }
        #expect(try row.timestamp(11) == Timestamp(microseconds: .min))
        #expect(throws: PostgresError.self) { try row.double(12) }
    }

    @Test func everyMisreadingIsThrown() async throws {
        var parameters = SQLParameters()
        parameters.append("text")
        parameters.append(Int64.max)
        parameters.append([0xff, 0xfe] as [UInt8])
        parameters.append(array: ["a"])
        let row = try await self.echo(parameters)
        #expect(throws: PostgresError.self) { try row.int32(0) }
        #expect(throws: PostgresError.self) { try row.int64(0) }
        #expect(throws: PostgresError.self) { try row.bool(0) }
        #expect(throws: PostgresError.self) { try row.bytes(0) }
        #expect(throws: PostgresError.self) { try row.timestamp(0) }
        #expect(throws: PostgresError.self) { try row.uuid(0) }
        #expect(throws: PostgresError.self) { try row.double(0) }
        #expect(throws: PostgresError.self) { try row.textArray(0) }
        #expect(throws: PostgresError.self) { try row.text(1) }
        #expect(throws: PostgresError.self) { try row.int32(1) }
        #expect(throws: PostgresError.self) { try row.int16(1) }
        #expect(throws: PostgresError.self) { try row.text(2) }
        #expect(throws: PostgresError.self) { try row.int64Array(3) }
        #expect(throws: PostgresError.self) { try row.text(4) }
        #expect(throws: PostgresError.self) { try row.text(-1) }
        let error = #expect(throws: PostgresError.self) { try row.int32(0) }
        #expect(error?.code == .decoding)
    }

    @Test func enumReadsAsText() async throws {
        let connection = try await TestDatabase.make().connect()
        try await connection.execute("CREATE TYPE mood AS ENUM ('happy')")
        var parameters = SQLParameters()
        parameters.append("happy")
        let query = SQLQuery(SQLStatement("mood", "SELECT $1::mood"), parameters)
        #expect(try await connection.run(query).single().text(0) == "happy")
    }

    @Test func singleWantsExactlyOneRow() async throws {
        let connection = try await TestDatabase.make().connect()
        let rows = try await connection.run(SQLQuery(SQLStatement("rows", "SELECT n FROM generate_series(1, 3) AS n")))
        #expect(rows.count == 3)
        #expect(rows.affectedRows == 3)
        #expect(try rows.map { try $0.int32(0) } == [1, 2, 3])
        #expect(throws: PostgresError.self) { try rows.single() }
    }

    @Test(arguments: [
        "", "0188b5a2", "0188b5a2-1c5e-7d4f-9f6e-0a1b2c3d4e5", "0188b5a2-1c5e-7d4f-9f6e-0a1b2c3d4e5ff",
        "0188b5a21-c5e-7d4f-9f6e-0a1b2c3d4e5f", "g188b5a2-1c5e-7d4f-9f6e-0a1b2c3d4e5f",
        "{0188b5a2-1c5e-7d4f-9f6e-0a1b2c3d4e}",
    ])
    func malformedUUID(text: String) async throws {
        let connection = try await TestDatabase.make().connect()
        var parameters = SQLParameters()
        parameters.appendUUIDs([text])
        let query = SQLQuery(SQLStatement("uuid", "SELECT $1"), parameters)
        let error = await #expect(throws: PostgresError.self) { _ = try await connection.run(query) }
        #expect(error?.code == .invalidParameter)
    }
}
