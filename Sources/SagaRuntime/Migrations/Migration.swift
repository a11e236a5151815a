/// One numbered change of the schema. Once released it is never edited: a later one corrects it.
public struct Migration: Sendable {
    /// An index that is built while others write.
    public struct Index: Sendable {
        /// Of the table itself; a partition's is called after the partition and `suffix`.
        public var name: String
        public var table: String
        public var suffix: String
        public var isUnique: Bool
        /// What follows ON and the table's name, e.g. `(user_id COLLATE "C", saga_id) WHERE user_id IS NOT NULL`.
        public var definition: String

        public init(_ suffix: String, on table: String, isUnique: Bool = false, _ definition: String) {
            self.name = "\(table)_\(suffix)"
            self.table = table
            self.suffix = suffix
            self.isUnique = isUnique
            self.definition = definition
        }
    }

    enum Change: Sendable {
        /// One or more statements, in one transaction.
        case script(String)
        /// Without a transaction (`CREATE INDEX CONCURRENTLY`): after a crash in the middle it goes on where it was.
        case indexes([Index])
    }

    /// From 1, unique over all modules of the program; each module has a range of its own.
    public var version: Int
    /// e.g. `saga_tables`; with the number it reads `001_saga_tables`.
    public var name: String
    /// Programs that don't know this change can't serve the database any more: it takes away what they need (the
    /// contraction after an expansion). The default, false: they can.
    public var excludesOlderPrograms: Bool
    var change: Change

    /// - Parameter sql: one or more statements. They run in one transaction.
    public init(version: Int, name: String, excludesOlderPrograms: Bool = false, sql: String) {
        self.version = version
        self.name = name
        self.excludesOlderPrograms = excludesOlderPrograms
        self.change = .script(sql)
    }

    /// - Parameter indexes: built one after the other, each partition's by itself, without keeping anybody from writing.
    public init(version: Int, name: String, indexes: [Index]) {
        self.version = version
        self.name = name
        self.excludesOlderPrograms = false
        self.change = .indexes(indexes)
    }

    /// e.g. `001_saga_tables`.
    public var title: String {
        let number = String(self.version)
        return String(repeating: "0", count: max(0, 3 - number.utf8.count)) + number + "_" + self.name
    }
}
