package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/spf13/pflag"

	"evenkeel/sweep/fleet"
)

// accessFlags say where the servers are and who this is.
type accessFlags struct {
	url, passwordFile, joining string
	fleet.Access
}

func (a *accessFlags) add(f *pflag.FlagSet) {
	f.StringVar(&a.url, "nats-url", "", "servers that run already: nats://127.0.0.1:4222 on this machine, tls://HOST:PORT beyond; several by commas")
	f.StringVar(&a.User, "user", "", "name of a user")
	f.StringVar(&a.passwordFile, "password-file", "", "file with that user's password")
	f.StringVar(&a.Creds, "creds", "", "file of credentials (.creds), as nsc writes them")
	f.StringVar(&a.NKey, "nkey", "", "file with the seed of a user's nkey")
	f.StringVar(&a.CA, "tls-ca", "", "certificates (PEM) that the other side's is checked against")
	f.StringVar(&a.Cert, "tls-cert", "", "own certificate (PEM)")
	f.StringVar(&a.Key, "tls-key", "", "key of the own certificate (PEM)")
}

// read reads the files that the flags name.
func (a *accessFlags) read() error {
	if (a.User == "") != (a.passwordFile == "") {
		return errors.New("--user and --password-file belong together: give both")
	}
	if (a.Cert == "") != (a.Key == "") {
		return errors.New("--tls-cert and --tls-key belong together: give both")
	}
	if a.passwordFile != "" {
		text, err := os.ReadFile(a.passwordFile)
		if err != nil {
			return fmt.Errorf("--password-file: %w", err)
		}
		if a.Password = string(bytes.TrimRight(text, "\r\n")); a.Password == "" {
			return fmt.Errorf("--password-file %s is empty", a.passwordFile)
		}
	}
	if a.joining != "" {
		text, err := os.ReadFile(a.joining)
		if err != nil {
			return fmt.Errorf("--joining: %w", err)
		}
		if a.Joining = strings.Fields(string(text)); len(a.Joining) == 0 {
			return fmt.Errorf("--joining %s names no nkey", a.joining)
		}
	}
	return nil
}

// connect connects to the servers of --nats-url.
func (a *accessFlags) connect(wait bool) (*nats.Conn, error) {
	if a.url == "" {
		return nil, errors.New("--nats-url is missing: name the servers, such as nats://127.0.0.1:4222")
	}
	if err := a.read(); err != nil {
		return nil, err
	}
	return fleet.Connect(a.url, a.Access, wait)
}
