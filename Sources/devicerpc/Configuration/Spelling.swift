/// Finds what somebody who mistyped a name may have meant.
enum Spelling {
    /// The known name with the fewest edits to `name`, if that is few enough to be a slip.
    static func nearest(to name: String, among known: [String]) -> String? {
        let best = known.sorted().map { ($0, Self.distance(name, $0)) }.min { $0.1 < $1.1 }
        guard let best, best.1 <= max(2, name.utf8.count / 5) else { return nil }
        return best.0
    }

    /// Levenshtein distance over bytes.
    static func distance(_ left: String, _ right: String) -> Int {
        let right = Array(right.utf8)
        var row = Array(0...right.count)
        for (i, byte) in left.utf8.enumerated() {
            var diagonal = row[0]
            row[0] = i + 1
            for j in right.indices {
                let replaced = diagonal + (byte == right[j] ? 0 : 1)
                diagonal = row[j + 1]
                row[j + 1] = min(replaced, row[j] + 1, diagonal + 1)
            }
        }
        return row[right.count]
    }
}
