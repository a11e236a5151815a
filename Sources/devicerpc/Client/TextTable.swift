/// A table with aligned columns, for people.
struct TextTable {
    private let header: [String]
    private var rows: [[String]] = []

    init(_ header: [String]) { self.header = header }

    mutating func append(_ row: [String]) { self.rows.append(row.map(Printable.text)) }

    func render(style: TextStyle) -> String {
        var widths = self.header.map(\.count)
        for row in self.rows {
            for (column, cell) in row.enumerated() where column < widths.count {
                widths[column] = max(widths[column], cell.count)
            }
        }
        func line(_ cells: [String]) -> String {
            var line = cells.enumerated().map { column, cell in cell.padded(to: widths[column]) }.joined(
                separator: "  ")
            while line.last == " " { line.removeLast() }
            return line
        }
        return ([style.bold(line(self.header))] + self.rows.map(line)).map { $0 + "\n" }.joined()
    }
}
