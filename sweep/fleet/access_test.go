package fleet

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nkeys"
)

func TestAccessBeyondThisMachine(t *testing.T) {
	t.Parallel()
	user := Access{User: "ann", Password: "secret"}
	for _, c := range []struct {
		url, listen string
		access      Access
		refusal     string // empty: allowed
	}{
		{url: "nats://127.0.0.1:4222"},
		{url: "127.0.0.1:4222"},
		{url: "nats://localhost:4222,nats://[::1]:4222"},
		{url: "nats://10.0.0.7:4222", refusal: "not encrypted"},
		{url: "10.0.0.7:4222", access: user, refusal: "not encrypted"},
		{url: "nats://127.0.0.1:4222,nats://10.0.0.7:4222", access: user, refusal: "not encrypted"},
		{url: "tls://nats.example.org:4222", refusal: "no credentials"},
		{url: "tls://nats.example.org:4222", access: Access{User: "ann"}, refusal: "no credentials"},
		{url: "tls://ann@nats.example.org:4222", refusal: "no credentials"},
		{url: "tls://nats.example.org:4222", access: user},
		{url: "nats://nats.example.org:4222", access: Access{CA: "ca.pem", Creds: "ann.creds"}},
		{url: "tls://nats.example.org:4222", access: Access{NKey: "ann.nk"}},
		{url: "tls://ann:secret@nats.example.org:4222"},
		{url: "nats://127.0.0.1.example.org:4222", access: user, refusal: "not encrypted"},
		{url: "ws://127.0.0.1:4222", refusal: "scheme"},
		{url: "tls://", refusal: "no address"},
		{url: ",", refusal: "no address"},
		{listen: "127.0.0.1:4222"},
		{listen: "localhost:0"},
		{listen: "[::1]:4222"},
		{listen: ":4222", refusal: "not encrypted"},
		{listen: "0.0.0.0:4222", access: user, refusal: "not encrypted"},
		{listen: "0.0.0.0:4222", access: Access{Cert: "c", Key: "k"}, refusal: "anybody"},
		{listen: "0.0.0.0:4222", access: Access{Cert: "c", Key: "k", User: "ann"}, refusal: "anybody"},
		{listen: "0.0.0.0:4222", access: Access{Cert: "c", User: "ann", Password: "secret"}, refusal: "give both"},
		{listen: "0.0.0.0:4222", access: Access{Cert: "c", Key: "k", User: "ann", Password: "secret"}},
		{listen: "[::]:4222", access: Access{Cert: "c", Key: "k", Joining: []string{"U"}}},
		{listen: "4222", refusal: "HOST:PORT"},
		{listen: "localhost:port", refusal: "HOST:PORT"},
	} {
		err := c.access.CheckURLs(c.url)
		if c.listen != "" {
			err = c.access.CheckListen(c.listen)
		}
		switch {
		case c.refusal == "" && err != nil:
			t.Errorf("%s%s is refused: %s", c.url, c.listen, err)
		case c.refusal != "" && (err == nil || !strings.Contains(err.Error(), c.refusal)):
			t.Errorf("%s%s: %v, want %q", c.url, c.listen, err, c.refusal)
		case err != nil && strings.Contains(err.Error(), "secret"):
			t.Errorf("%s%s: the password is shown: %s", c.url, c.listen, err)
		}
	}
}

// certificate writes one for this machine, signed by itself, and its key.
func certificate(t *testing.T) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(t.TempDir(), "cert.pem"), filepath.Join(t.TempDir(), "key.pem")
	for name, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

func TestWhoListensTakesOnlyThoseWhoProveWhoTheyAre(t *testing.T) {
	t.Parallel()
	cert, key := certificate(t)
	pair, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	public, _ := pair.PublicKey()
	seed, _ := pair.Seed()
	stranger, _ := nkeys.CreateUser()
	unknown, _ := stranger.Seed()
	dir := t.TempDir()
	file := func(name string, text []byte) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	known, strange := file("known.nk", seed), file("strange.nk", unknown)
	s, err := Serve(t.TempDir(), "127.0.0.1:0", Access{Cert: cert, Key: key, User: "ann", Password: "secret", Joining: []string{public}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close(false)
	nc, err := s.Connect()
	if err != nil {
		t.Fatal("the own process: ", err)
	}
	nc.Close()
	url := "tls://" + s.Address()
	for _, c := range []struct {
		name    string
		access  Access
		allowed bool
	}{
		{"user and password", Access{CA: cert, User: "ann", Password: "secret"}, true},
		{"nkey", Access{CA: cert, NKey: known}, true},
		{"wrong password", Access{CA: cert, User: "ann", Password: "guess"}, false},
		{"nobody", Access{CA: cert}, false},
		{"another nkey", Access{CA: cert, NKey: strange}, false},
		{"a certificate that nobody vouches for", Access{User: "ann", Password: "secret"}, false},
	} {
		nc, err := Connect(url, c.access, false)
		if (err == nil) != c.allowed || errors.Is(err, ErrAway) {
			t.Errorf("%s: %v", c.name, err)
		}
		if err == nil {
			nc.Close()
		}
	}
	if _, err := Serve(t.TempDir(), "127.0.0.1:0", Access{Joining: []string{"SU-no-public-key"}}); err == nil || !strings.Contains(err.Error(), "public nkey") {
		t.Errorf("a key that is none: %v", err)
	}
}
