package fleet

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
)

// Access is how one end of a connection proves who it is, and knows the other. Beyond this machine both are required.
type Access struct {
	User, Password string
	Creds          string   // file of credentials that a NATS operator gave
	NKey           string   // file with the seed of an nkey
	Joining        []string // public nkeys that may join, of one who listens
	CA             string   // file of certificates that the other's is checked against
	Cert, Key      string   // files of the own certificate
}

// waysOut end the refusals of what would cross a network in the open.
const (
	wayOutURL    = "write tls://HOST:PORT, and --creds FILE, --nkey FILE, or --user NAME with --password-file FILE (--tls-ca FILE where the certificate is your own), or lead an ssh tunnel to a port of this machine"
	wayOutListen = "give --tls-cert FILE and --tls-key FILE, and --user NAME with --password-file FILE or --joining FILE with the public nkeys that may join, or listen on 127.0.0.1"
)

// loopback reports whether a host is this machine for certain.
func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// CheckURLs refuses addresses of servers, separated by commas, to which what is sent could be read, or that take anybody.
func (a Access) CheckURLs(urls string) error {
	for _, text := range strings.Split(urls, ",") {
		if text = strings.TrimSpace(text); !strings.Contains(text, "://") {
			text = "nats://" + text
		}
		u, err := url.Parse(text)
		if err != nil || u.Hostname() == "" {
			return errors.New("--nats-url is no address of a server: write tls://HOST:PORT, or nats://127.0.0.1:PORT for this machine; several are separated by commas")
		}
		if u.Scheme != "nats" && u.Scheme != "tls" {
			return fmt.Errorf("--nats-url %s: the scheme is %s: write tls://HOST:PORT, or nats://127.0.0.1:PORT for this machine", u.Redacted(), u.Scheme)
		}
		if loopback(u.Hostname()) {
			continue
		}
		if u.Scheme != "tls" && a.CA == "" {
			return fmt.Errorf("--nats-url %s is beyond this machine and not encrypted: %s", u.Redacted(), wayOutURL)
		}
		_, password := u.User.Password()
		if !password && a.Creds == "" && a.NKey == "" && (a.User == "" || a.Password == "") {
			return fmt.Errorf("--nats-url %s is beyond this machine and has no credentials: %s", u.Redacted(), wayOutURL)
		}
	}
	return nil
}

// CheckListen refuses to listen where others could read or join.
func (a Access) CheckListen(address string) error {
	host, port, err := net.SplitHostPort(address)
	if n, bad := strconv.Atoi(port); err != nil || bad != nil || n < 0 || n > 65535 {
		return fmt.Errorf("--listen %s: write HOST:PORT, such as 127.0.0.1:4222", address)
	}
	if (a.Cert == "") != (a.Key == "") {
		return errors.New("--tls-cert and --tls-key belong together: give both")
	}
	if loopback(host) {
		return nil
	}
	if a.Cert == "" {
		return fmt.Errorf("--listen %s is beyond this machine and not encrypted: %s", address, wayOutListen)
	}
	if len(a.Joining) == 0 && (a.User == "" || a.Password == "") {
		return fmt.Errorf("--listen %s is beyond this machine and would take anybody: %s", address, wayOutListen)
	}
	return nil
}

// Connect connects to servers that run already. Who waits goes on trying where none answers yet.
func Connect(urls string, a Access, wait bool) (*nats.Conn, error) {
	if err := a.CheckURLs(urls); err != nil {
		return nil, err
	}
	options, err := a.options()
	if err != nil {
		return nil, err
	}
	if !strings.Contains(urls, "tls://") && a.CA == "" {
		options = append(options, nats.IgnoreDiscoveredServers()) // which may be beyond this machine
	}
	nc, err := nats.Connect(urls, options...)
	var certificate *tls.CertificateVerificationError
	switch {
	case errors.Is(err, nats.ErrAuthorization) || errors.Is(err, nats.ErrAuthExpired):
		return nil, fmt.Errorf("the server does not take these credentials (%w): ask who runs it", err)
	case errors.As(err, &certificate):
		return nil, fmt.Errorf("the server's certificate is not trusted (%w): give the one that vouches for it by --tls-ca FILE", certificate.Err)
	case err != nil && wait:
		return nats.Connect(urls, append(options, nats.RetryOnFailedConnect(true))...)
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrAway, err)
	}
	return nc, nil
}

func (a Access) options() ([]nats.Option, error) {
	options := []nats.Option{nats.Name("evenkeel-fleet"), nats.MaxReconnects(-1), nats.ReconnectWait(250 * time.Millisecond), nats.Timeout(5 * time.Second)}
	if a.User != "" {
		options = append(options, nats.UserInfo(a.User, a.Password))
	}
	if a.Creds != "" {
		if _, err := os.Stat(a.Creds); err != nil {
			return nil, fmt.Errorf("--creds: %w", err)
		}
		options = append(options, nats.UserCredentials(a.Creds))
	}
	if a.NKey != "" {
		o, err := nats.NkeyOptionFromSeed(a.NKey)
		if err != nil {
			return nil, fmt.Errorf("--nkey %s holds no seed of a user's nkey: %w", a.NKey, err)
		}
		options = append(options, o)
	}
	if a.CA != "" {
		if _, err := certificates(a.CA); err != nil {
			return nil, err
		}
		options = append(options, nats.RootCAs(a.CA))
	}
	if a.Cert != "" {
		if _, err := tls.LoadX509KeyPair(a.Cert, a.Key); err != nil {
			return nil, fmt.Errorf("--tls-cert %s: %w", a.Cert, err)
		}
		options = append(options, nats.ClientCert(a.Cert, a.Key))
	}
	return options, nil
}

func certificates(file string) (*x509.CertPool, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("--tls-ca: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("--tls-ca %s holds no certificate in PEM", file)
	}
	return pool, nil
}

// Server is a JetStream server in this process.
type Server struct {
	s        *server.Server
	dir      string
	password string // of this process
}

// payload is what a message of the own server may have.
const payload = 8 << 20

// Serve starts a server that keeps its state under dir: without a port if nobody is to join, or listening on HOST:PORT. Whatever it
// has acknowledged is on disk.
func Serve(dir, listen string, a Access) (*Server, error) {
	o := &server.Options{ServerName: "evenkeel", JetStream: true, StoreDir: filepath.Join(dir, "fleet"), SyncAlways: true, DontListen: listen == "",
		MaxPayload: payload, NoLog: true, NoSigs: true}
	s := &Server{dir: o.StoreDir}
	if listen != "" {
		if err := s.listen(o, listen, a); err != nil {
			return nil, err
		}
	}
	var err error
	if s.s, err = server.NewServer(o); err != nil {
		return nil, fmt.Errorf("the embedded server does not start: %w", err)
	}
	s.s.Start()
	if !s.s.ReadyForConnections(10*time.Second) || listen != "" && s.s.Addr() == nil {
		s.s.Shutdown()
		return nil, fmt.Errorf("the embedded server does not start: is %s free?", listen)
	}
	if !s.s.JetStreamEnabled() {
		s.s.Shutdown()
		return nil, fmt.Errorf("the embedded server cannot keep its state in %s", o.StoreDir)
	}
	return s, nil
}

func (s *Server) listen(o *server.Options, address string, a Access) error {
	if err := a.CheckListen(address); err != nil {
		return err
	}
	host, port, _ := net.SplitHostPort(address)
	o.Host, o.Port = host, server.RANDOM_PORT
	if n, _ := strconv.Atoi(port); n > 0 {
		o.Port = n
	}
	if probe, err := net.Listen("tcp", address); err != nil {
		return fmt.Errorf("--listen %s: %w", address, err)
	} else {
		probe.Close()
	}
	if a.Cert != "" {
		pair, err := tls.LoadX509KeyPair(a.Cert, a.Key)
		if err != nil {
			return fmt.Errorf("--tls-cert %s: %w", a.Cert, err)
		}
		o.TLS, o.TLSTimeout = true, 5
		o.TLSConfig = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
		if a.CA != "" {
			if o.TLSConfig.ClientCAs, err = certificates(a.CA); err != nil {
				return err
			}
			o.TLSConfig.ClientAuth = tls.RequireAndVerifyClientCert
		}
	}
	if a.User == "" && len(a.Joining) == 0 {
		return nil
	}
	var secret [32]byte
	rand.Read(secret[:]) // never fails
	s.password = hex.EncodeToString(secret[:])
	o.Users = append(o.Users, &server.User{Username: "coordinator-" + s.password[:8], Password: s.password})
	if a.User != "" {
		o.Users = append(o.Users, &server.User{Username: a.User, Password: a.Password})
	}
	for _, key := range a.Joining {
		if !nkeys.IsValidPublicUserKey(key) {
			return fmt.Errorf("--joining: %q is no public nkey of a user: it begins with U", printable(key))
		}
		o.Nkeys = append(o.Nkeys, &server.NkeyUser{Nkey: key})
	}
	return nil
}

// Connect connects this process, by memory and not by a port.
func (s *Server) Connect() (*nats.Conn, error) {
	options := []nats.Option{nats.Name("evenkeel-fleet"), nats.InProcessServer(s.s), nats.MaxReconnects(-1)}
	if s.password != "" {
		options = append(options, nats.UserInfo("coordinator-"+s.password[:8], s.password))
	}
	return nats.Connect("", options...)
}

// Address is where the server listens.
func (s *Server) Address() string { return s.s.Addr().String() }

// Close stops the server, and removes its state where nothing in it is needed any more.
func (s *Server) Close(finished bool) error {
	s.s.Shutdown()
	s.s.WaitForShutdown()
	if finished {
		return os.RemoveAll(s.dir)
	}
	return nil
}
