import SagaRuntime

/// What an answer of the user service means for a report of usage. Pure; the whole table of statuses is here.
///
/// Two questions decide. Does the answer say what became of the report? And is it the service's own word, or that of
/// a gateway before it? What doesn't say is unknown, because whoever wrote it may have passed the report on before.
enum QuotaAnswer: Equatable {
    /// What was asked for.
    enum Report: Sendable, CaseIterable {
        case increment
        /// The same increment again, under its key, so that it is certainly counted before it is taken back.
        case confirmation
        case decrement
    }

    /// What came with the status.
    enum Body: Equatable {
        /// Nothing: the status is all there is.
        case none
        /// A JSON object, as the service writes them. `saysNo`: its member `success` is false.
        case own(saysNo: Bool)
        /// Somebody else's page, or one that broke off.
        case foreign
    }

    /// Counted; or taken back.
    case done
    /// Definite: nothing changed. The service's own no.
    case refused
    /// Definite: nothing changed. Come back later.
    case throttled(after: Duration?)
    /// Definite: nothing changed, and the service itself has decided nothing: address, token or gateway are wrong.
    case misdirected
    /// Definite: nothing changed. What is recorded there contradicts this report; nobody but a person can tell why.
    case contradicted
    /// It may have been done.
    case unknown

    /// How long a `Retry-After` is believed at most.
    static let maximumDelay: Duration = .seconds(300)

    /// | status | increment, confirmation | decrement |
    /// |---|---|---|
    /// | 2xx, with a JSON object or nothing | done (`"success": false`: refused) | the same |
    /// | 2xx with anything else, or broken off | unknown: a proxy's page, a cached one | the same |
    /// | 301, 302, 307, 308 | misdirected: it says where else to ask | the same |
    /// | 400, 402, 412, 422, 423, 424 | refused; misdirected if it is not the service's own word | the same |
    /// | 403 | likewise | misdirected: nobody is refused to give back |
    /// | 401, 404 to 407, 411, 413 to 417, 421, 426, 428, 431, 451 | misdirected | the same |
    /// | 409 | refused; confirmation: throttled, the key is in use | contradicted |
    /// | 410 | refused | done: there is nothing to take back any more |
    /// | 429 | throttled; increment: refused where the service itself names no time | throttled |
    /// | 408, 425, 499 and all other 4xx | unknown: whoever waited gave up, not whoever counts | the same |
    /// | 5xx | unknown: a gateway's and the service's look alike, and both may come after it counted | the same |
    /// | all others | unknown | the same |
    ///
    /// - Parameter now: seconds since 1970, for a `Retry-After` that is a date.
    init(status: Int, body: Body, to report: Report, retryAfter: String? = nil, now: Int64) {
        let isOwnWord = body != .foreign
        switch (status, report) {
        case (200..<300, _):
            switch body {
            case .none, .own(saysNo: false): self = .done
            case .own(saysNo: true): self = .refused
            case .foreign: self = .unknown
            }
        case (301, _), (302, _), (307, _), (308, _):
            self = .misdirected
        case (400, _), (402, _), (412, _), (422, _), (423, _), (424, _), (403, .increment),
            (403, .confirmation):
            self = isOwnWord ? .refused : .misdirected
        case (403, .decrement), (401, _), (404...407, _), (411, _), (413...417, _), (421, _), (426, _), (428, _),
            (431, _), (451, _):
            self = .misdirected
        case (409, .confirmation): self = .throttled(after: Self.delay(retryAfter, now))
        case (409, .increment), (410, .increment), (410, .confirmation): self = .refused
        case (409, .decrement): self = .contradicted
        case (410, .decrement): self = .done
        case (429, .increment) where isOwnWord && retryAfter == nil: self = .refused
        case (408, _) where Mutant.timeoutsCountedNothing.isActive: self = .throttled(after: nil)
        case (429, _): self = .throttled(after: Self.delay(retryAfter, now))
        default: self = .unknown
        }
    }

    /// Seconds or a date (RFC 9110, 10.2.3); anything else is left to the saga's own back-off.
    private static func delay(_ retryAfter: String?, _ now: Int64) -> Duration? {
        guard let text = retryAfter?.drop(while: { $0 == " " }) else { return nil }
        let word = text.prefix { $0 != " " }
        let isNumber = !word.isEmpty && word.utf8.allSatisfy { (48...57).contains($0) }
        if isNumber {
            guard text.dropFirst(word.count).allSatisfy({ $0 == " " }) else { return nil }
            // What doesn't fit is more than what is believed in any case.
            return Int64(word).map { min(.seconds($0), Self.maximumDelay) } ?? Self.maximumDelay
        }
        return HTTPDate.seconds(text, now: now).map { min(max(.seconds($0 - now), .zero), Self.maximumDelay) }
    }
}

extension QuotaAnswer.Body {
    /// - Parameters:
    ///   - contentType: the header, if there is one.
    ///   - text: `nil` if the body broke off, or is longer than any that the service writes.
    ///   - value: `text` as JSON, if it is some.
    init(contentType: String?, text: String?, value: JSONValue?) {
        guard let text else {
            self = .foreign
            return
        }
        guard !text.utf8.allSatisfy({ $0 == 32 || (9...13).contains($0) }) else {
            self = .none
            return
        }
        guard Self.isJSON(contentType), let value, case .object = value.content else {
            self = .foreign
            return
        }
        self = .own(saysNo: value["success"]?.bool == false)
    }

    /// `application/json`, `application/problem+json` and the like; without the header, what the text is decides.
    private static func isJSON(_ contentType: String?) -> Bool {
        guard let contentType else { return true }
        let type = contentType.prefix { $0 != ";" }.lowercased()
        let word = type.split(whereSeparator: { $0 == " " || $0 == "\t" }).first ?? ""
        return word == "application/json" || word == "text/json" || word.hasSuffix("+json")
    }
}
