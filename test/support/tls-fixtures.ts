/**
 * Certificates and keys for tests, made with `openssl ca -selfsign -startdate -enddate` (P-256, CN=localhost), and one
 * that is made when a test needs it to begin today.
 *
 * Invariant: they protect nothing; the private keys that stand here are public.
 */
import { expect } from "bun:test";

const openssl = Bun.which("openssl");

/** Without it {@link makeCertificate} cannot work. */
export const hasOpenssl = openssl !== null;

/** Writes `cert.pem` and `key.pem` into `dir`: signed by itself for localhost, from now on for so many days. */
export function makeCertificate(dir: string, days: number): void {
  const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
  const subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"];
  const files = ["-keyout", "key.pem", "-out", "cert.pem"];
  const made = Bun.spawnSync(
    [openssl ?? "", "req", "-x509", ...key, "-days", `${days}`, ...subject, ...files],
    { cwd: dir, stderr: "pipe" },
  );
  expect(made.exitCode, made.stderr.toString()).toBe(0);
}

/** 2020 to 2120, for A_KEY. */
export const GOOD_CERTIFICATE = `-----BEGIN CERTIFICATE-----
MIIBUDCB9qADAgECAgEBMAoGCCqGSM49BAMCMBQxEjAQBgNVBAMMCWxvY2FsaG9z
dDAgFw0yMDAxMDEwMDAwMDBaGA8yMTIwMDEwMTAwMDAwMFowFDESMBAGA1UEAwwJ
bG9jYWxob3N0MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEBq2+muxxOxDl+E9i
X+CRME9FViHeVd3I9VkAPwbvIl518Hyl3mwo2Jtot7nLOl886zZe4SgFdU+BKMkS
g5naBqM3MDUwFAYDVR0RBA0wC4IJbG9jYWxob3N0MB0GA1UdDgQWBBR2kWhbVAdJ
dRUkJrMCX52HXQ9a0TAKBggqhkjOPQQDAgNJADBGAiEAvpau9B+k+xC1CECEjjWa
9bJNcieofuSLQQXPaKIcyjICIQCd9SQ8QNFMLK7sqmt/2kGkEWtYttvBt/kJUqhL
XxfyVg==
-----END CERTIFICATE-----
`;

/** Ended in 2001, for A_KEY. */
export const EXPIRED_CERTIFICATE = `-----BEGIN CERTIFICATE-----
MIIBTTCB9KADAgECAgECMAoGCCqGSM49BAMCMBQxEjAQBgNVBAMMCWxvY2FsaG9z
dDAeFw0wMDAxMDEwMDAwMDBaFw0wMTAxMDEwMDAwMDBaMBQxEjAQBgNVBAMMCWxv
Y2FsaG9zdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABAatvprscTsQ5fhPYl/g
kTBPRVYh3lXdyPVZAD8G7yJedfB8pd5sKNibaLe5yzpfPOs2XuEoBXVPgSjJEoOZ
2gajNzA1MBQGA1UdEQQNMAuCCWxvY2FsaG9zdDAdBgNVHQ4EFgQUdpFoW1QHSXUV
JCazAl+dh10PWtEwCgYIKoZIzj0EAwIDSAAwRQIhAL+RUOTaVc3yA7052r5LYK2t
htxtu+ZzS25w80vJPbEmAiBvwVsYvjqyi+zuBjlsvgQCvFW9+/du0ejHH+y8nigM
2A==
-----END CERTIFICATE-----
`;

/** Begins in 2110, for A_KEY. */
export const FUTURE_CERTIFICATE = `-----BEGIN CERTIFICATE-----
MIIBUDCB+KADAgECAgEDMAoGCCqGSM49BAMCMBQxEjAQBgNVBAMMCWxvY2FsaG9z
dDAiGA8yMTEwMDEwMTAwMDAwMFoYDzIxMjAwMTAxMDAwMDAwWjAUMRIwEAYDVQQD
DAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAAQGrb6a7HE7EOX4
T2Jf4JEwT0VWId5V3cj1WQA/Bu8iXnXwfKXebCjYm2i3ucs6XzzrNl7hKAV1T4Eo
yRKDmdoGozcwNTAUBgNVHREEDTALgglsb2NhbGhvc3QwHQYDVR0OBBYEFHaRaFtU
B0l1FSQmswJfnYddD1rRMAoGCCqGSM49BAMCA0cAMEQCIDywNpZwu+u2CZvplSVe
THvl1aNio1miDbZa33pFxVGYAiAi+xh0JOgs/P2VDQRskIp5Y5RLExyjD2YATJqD
RthKAA==
-----END CERTIFICATE-----
`;

/** The key of the certificates. */
export const A_KEY = `-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQggWJE3imzX4NexPcS
6SsNlDIMxpd9FYE8CuPjeM+0yOuhRANCAAQGrb6a7HE7EOX4T2Jf4JEwT0VWId5V
3cj1WQA/Bu8iXnXwfKXebCjYm2i3ucs6XzzrNl7hKAV1T4EoyRKDmdoG
-----END PRIVATE KEY-----
`;

/** A key that belongs to none of them. */
export const OTHER_KEY = `-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgeo4HbMInWT4MUO1+
3R1TaNpD/TkisXR0WpL7+3U2EaqhRANCAASTqqfdDvmWLDZ0UkdwfelFJ/A3Of2Z
sUx3i0+BIWH1VC8tAQBLXCBaES9nBKtk4mw9URc3RF12VcojS4DGofdV
-----END PRIVATE KEY-----
`;

/** A_KEY behind a passphrase. */
export const ENCRYPTED_KEY = `-----BEGIN ENCRYPTED PRIVATE KEY-----
MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAjh5OMEDfFvJgICCAAw
DAYIKoZIhvcNAgkFADAdBglghkgBZQMEASoEEIBnTAv7sPnbcsft4g6Uh7cEgZCH
XuKCVyQuf512uUFpezz2WxkEgssGnwTPMuF7Q62IMuZoq1KQKKguYy8BDok+B8St
VNl8nfgf9g8AEswpCQIHKDAI29wENFeCxT2w4Rj7P0DpbrI4MFtovImMHFyy+rhk
X4Zx+SK2OIQY7VB3R0G/Wgm6TTD2Hx7wYoI+MxlO01nQv3Rz1WcNiuEN2WsGzAU=
-----END ENCRYPTED PRIVATE KEY-----
`;
