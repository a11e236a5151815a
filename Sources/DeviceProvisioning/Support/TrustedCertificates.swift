import AsyncHTTPClient
import NIOSSL

/// The authorities whose word about a server is believed, instead of those that the system knows.
public struct TrustedCertificates: Sendable {
    private let certificates: [NIOSSLCertificate]

    /// - Parameter key: the setting that names the file.
    /// - Throws: `ProviderConfigurationError` if it can't be read, or has no certificate.
    public init(pemFile path: String, key: String) throws(ProviderConfigurationError) {
        do {
            self.certificates = try NIOSSLCertificate.fromPEMFile(path)
        } catch {
            throw ProviderConfigurationError(key: key, problem: "\(path) can't be read as certificates in PEM")
        }
        guard !self.certificates.isEmpty else {
            throw ProviderConfigurationError(key: key, problem: "\(path) has no certificate in PEM")
        }
    }

    func apply(to configuration: inout HTTPClient.Configuration) {
        var tls = TLSConfiguration.makeClientConfiguration()
        tls.trustRoots = .certificates(self.certificates)
        configuration.tlsConfiguration = tls
    }
}
