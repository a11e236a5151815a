import NIOSSL

/// Who is on the other side of a connection, as a certificate says that was checked against the authorities.
///
/// The subject's common name is left out: names are alternative names (RFC 9525, section 2).
public final class PeerCertificate: Sendable, Equatable {
    /// The subject alternative names of type URI, e.g. `spiffe://cluster/ns/shop/sa/orders`.
    public let uris: [String]
    /// The subject alternative names of type DNS.
    public let dnsNames: [String]

    public init(uris: [String] = [], dnsNames: [String] = []) {
        self.uris = uris
        self.dnsNames = dnsNames
    }

    /// Names with bytes that no such name has are left out: they would only look like another.
    convenience init(_ certificate: NIOSSLCertificate) {
        var uris: [String] = []
        var dnsNames: [String] = []
        for name in certificate._subjectAlternativeNames() {
            guard name.nameType == .uri || name.nameType == .dnsName, !name.contents.isEmpty,
                name.contents.allSatisfy({ (0x21...0x7E).contains($0) })
            else { continue }
            let text = String(decoding: name.contents, as: UTF8.self)
            if name.nameType == .uri { uris.append(text) } else { dnsNames.append(text) }
        }
        self.init(uris: uris, dnsNames: dnsNames)
    }

    /// URIs first.
    public var names: [String] { self.uris + self.dnsNames }

    /// Whether it was issued for the host of this name; `*.` at the beginning of a name of the certificate stands for one
    /// label (RFC 9525, section 6.3).
    func isFor(_ host: String) -> Bool {
        let host = Self.normal(host)
        let rest = host.firstIndex(of: ".").map { host[$0...] }
        return self.dnsNames.contains { name in
            let name = Self.normal(name)
            return name == host || (name.hasPrefix("*.") && rest.map { name.dropFirst() == $0 } == true)
        }
    }

    private static func normal(_ name: String) -> String {
        let name = name.lowercased()
        return name.hasSuffix(".") ? String(name.dropLast()) : name
    }

    public static func == (a: PeerCertificate, b: PeerCertificate) -> Bool {
        a.uris == b.uris && a.dnsNames == b.dnsNames
    }
}
