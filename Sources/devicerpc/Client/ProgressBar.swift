/// A bar of fixed width, as text.
enum ProgressBar {
    /// `████████░░░░` filled to `done / total`.
    static func render(done: Int, total: Int, width: Int) -> String {
        let width = max(1, width)
        let filled = total <= 0 ? 0 : min(width, max(0, done) * width / total)
        return String(repeating: "█", count: filled) + String(repeating: "░", count: width - filled)
    }

    /// `1.2 s`, `2 min 05 s`.
    static func elapsed(_ duration: Duration) -> String {
        let (seconds, attoseconds) = duration.components
        if seconds < 60 {
            return "\(seconds).\(attoseconds / 100_000_000_000_000_000) s"
        }
        let rest = seconds % 60
        return "\(seconds / 60) min \(rest < 10 ? "0" : "")\(rest) s"
    }
}

/// One line at the end of a terminal's output that is drawn again and again below lines that stay.
struct LiveLine {
    private var isDrawn = false
    private let write: (String) -> Void

    init(write: @escaping (String) -> Void = StandardError.write) { self.write = write }

    /// Writes lines that stay, above the live line.
    mutating func print(_ lines: [String]) {
        if lines.isEmpty { return }
        self.clear()
        self.write(lines.map { $0 + "\n" }.joined())
    }

    /// Draws the live line, cut to the terminal's width so that it never wraps.
    mutating func draw(_ line: String, width: Int) {
        self.write("\r\u{1b}[K" + String(line.prefix(max(1, width - 1))))
        self.isDrawn = true
    }

    mutating func clear() {
        if self.isDrawn { self.write("\r\u{1b}[K") }
        self.isDrawn = false
    }
}
