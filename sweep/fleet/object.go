package fleet

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// transfer is how long an object of some size may take, once: at least a megabyte a second.
func transfer(size uint64) time.Duration {
	return 10*time.Second + time.Duration(size)*time.Microsecond
}

// storeObject writes an object, unless it is there with the same content.
func storeObject(ctx context.Context, objects jetstream.ObjectStore, name string, text []byte) error {
	sum := sha256.Sum256(text)
	digest := "SHA-256=" + base64.URLEncoding.EncodeToString(sum[:])
	return again(ctx, func(attempt context.Context) error {
		if info, err := objects.GetInfo(attempt, name); err == nil && info.Digest == digest && info.Size == uint64(len(text)) {
			return nil
		}
		within, cancel := context.WithTimeout(ctx, transfer(uint64(len(text))))
		defer cancel()
		_, err := objects.PutBytes(within, name, text)
		return err
	})
}

// fetchObject reads an object, whose size is bounded before it is read. The library checks its digest.
func fetchObject(ctx context.Context, objects jetstream.ObjectStore, name string, most uint64) (text []byte, err error) {
	err = again(ctx, func(attempt context.Context) error {
		info, err := objects.GetInfo(attempt, name)
		if err != nil {
			return err
		}
		if info.Size > most {
			return &jetstream.APIError{Code: 413, Description: fmt.Sprintf("object %s has %d bytes: at most %d are allowed", printable(name), info.Size, most)}
		}
		within, cancel := context.WithTimeout(ctx, transfer(info.Size))
		defer cancel()
		o, err := objects.Get(within, name)
		if err != nil {
			return err
		}
		defer o.Close()
		var b bytes.Buffer
		n, err := io.Copy(&b, io.LimitReader(o, int64(most)))
		if err == nil && uint64(n) != info.Size {
			err = io.ErrUnexpectedEOF
		}
		text = b.Bytes()
		return err
	})
	return text, err
}
