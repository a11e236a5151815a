extension Run {
    /// Whose sagas are named by what is wrong.
    var namedClients: Set<Int> {
        var numbers: Set<Int> = []
        for line in self.wrong {
            for word in line.split(whereSeparator: { !$0.isLetter && !$0.isNumber }) where word.first == "S" {
                if let number = Int(word.dropFirst().prefix { $0.isNumber }) { numbers.insert(number) }
            }
            // "client 3 waits to this day", "c3 was told".
            let words = line.split(separator: " ")
            for (word, next) in zip(words, words.dropFirst()) where word == "client" {
                if let number = Int(next) { numbers.insert(number) }
            }
            if words.first?.first == "c", let number = words.first.flatMap({ Int($0.dropFirst()) }) {
                numbers.insert(number)
            }
        }
        return numbers
    }

    /// What happened, as far as it is about what is wrong: the plan, the blows, and what names one of the sagas.
    ///
    /// - Parameter limit: lines at most; what is left out is left out in the middle.
    func page(_ limit: Int) -> [String] {
        let clients = self.namedClients
        var names = Set(clients.map { "S\($0)" })
        let watchers = Set(clients.map { "c\($0)" })
        var chosen: [String] = []
        for line in self.history {
            let words = line.split(whereSeparator: { !$0.isLetter && !$0.isNumber && $0 != "#" }).map(String.init)
            // After the time, which is two words.
            guard words.count > 3 else { continue }
            let who = words[2]
            let isAboutSaga = zip(words, words.dropFirst()).contains { word, next in
                names.contains(word) || names.contains("\(word) \(next)")
                    || (word.first == "S" && names.contains(String(word.prefix { !$0.isLowercase })))
            }
            if who == "provider", isAboutSaga, let index = words.firstIndex(of: "MAKES"), index + 2 < words.count {
                names.insert("thing \(words[index + 2])")
            }
            let isOfWorld = ["seed", "oracle", "operator"].contains(who)
            let isBlow = ["KILLED", "FROZEN", "GOES", "starts", "IS", "stranger", "ends"].contains {
                words.contains($0)
            }
            if isOfWorld || isAboutSaga || isBlow || watchers.contains(who) || clients.isEmpty { chosen.append(line) }
        }
        guard chosen.count > limit else { return chosen }
        if limit < 3 { return Array(chosen.suffix(limit)) }
        let first = limit / 3
        let leftOut = chosen.count - limit + 1
        return chosen.prefix(first) + ["    … \(leftOut) lines …"] + chosen.suffix(limit - first - 1)
    }
}
