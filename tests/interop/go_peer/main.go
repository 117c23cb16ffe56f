// SPDX-License-Identifier: Apache-2.0

// A peer of troth.tls on the stock crypto/tls: nothing but its exporter is needed.
//
// It shows a passport, asks for one, checks the authenticator that comes, and then, as a client,
// sends a line and prints what comes back; as a server, sends back what it gets. It checks what
// belongs to the channel; whether the passport is good enough is not its business.
package main

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"
)

const (
	alpn         = "troth/expat-03"
	extCmw       = 0xFF00
	extAccepts   = 0xFF01
	ecdsaSha256  = 0x0403
	frameMessage = 2
	frameData    = 3
	frameEnd     = 4
	request      = 1
	proof        = 2
	decision     = 3
)

// {1: ["passport"], 2: [], 3: [], 4: 65536, 5: [], 6: false}
var accepts = append([]byte{0xA6, 1, 0x81, 0x68}, "passport\x02\x80\x03\x80\x04\x1a\x00\x01\x00\x00\x05\x80\x06\xf4"...)

type peer struct {
	conn     *tls.Conn
	state    tls.ConnectionState
	client   bool
	leaf     []byte
	key      crypto.Signer
	passport []byte
	asked    []byte
	accepted bool
	let      bool
}

func main() {
	if len(os.Args) != 4 {
		fail(errors.New("usage: peer client|server ADDRESS FOLDER"))
	}
	if err := run(os.Args[1] == "client", os.Args[2], os.Args[3]); err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Println("failed:", err)
	os.Exit(1)
}

func run(client bool, address, folder string) error {
	pair, err := tls.LoadX509KeyPair(filepath.Join(folder, "svid.pem"), filepath.Join(folder, "key.pem"))
	if err != nil {
		return err
	}
	ca, err := os.ReadFile(filepath.Join(folder, "ca.pem"))
	if err != nil {
		return err
	}
	passport, err := os.ReadFile(filepath.Join(folder, "passport"))
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	config := &tls.Config{
		Certificates:           []tls.Certificate{pair},
		MinVersion:             tls.VersionTLS13,
		NextProtos:             []string{alpn},
		ClientAuth:             tls.RequireAnyClientCert,
		SessionTicketsDisabled: true,
		// The name to expect is a SPIFFE ID, so the chain is verified here.
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			_, err := state.PeerCertificates[0].Verify(x509.VerifyOptions{
				Roots:     roots,
				KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
			})
			return err
		},
	}
	conn, err := connect(client, address, config)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return err
	}
	if err := conn.Handshake(); err != nil {
		return err
	}
	key, ok := pair.PrivateKey.(crypto.Signer)
	if !ok {
		return errors.New("the key cannot sign")
	}
	p := &peer{
		conn: conn, state: conn.ConnectionState(), client: client,
		leaf: pair.Certificate[0], key: key, passport: passport,
	}
	return p.run()
}

func connect(client bool, address string, config *tls.Config) (*tls.Conn, error) {
	if client {
		raw, err := net.Dial("tcp", address)
		if err != nil {
			return nil, err
		}
		return tls.Client(raw, config), nil
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	defer listener.Close()
	fmt.Println("listening", listener.Addr())
	raw, err := listener.Accept()
	if err != nil {
		return nil, err
	}
	return tls.Server(raw, config), nil
}

func (p *peer) run() error {
	if p.state.NegotiatedProtocol != alpn || p.state.DidResume {
		return errors.New("not a full handshake of our protocol")
	}
	context := make([]byte, 32)
	if _, err := rand.Read(context); err != nil {
		return err
	}
	p.asked = p.makeRequest(context)
	if err := p.message(request, p.asked); err != nil {
		return err
	}
	for !p.accepted || !p.let {
		kind, body, err := p.frame()
		if err != nil {
			return err
		}
		if kind != frameMessage || len(body) < 3 {
			return fmt.Errorf("frame %d before the decisions", kind)
		}
		if err := p.take(body[0], body[3:]); err != nil {
			return err
		}
	}
	return p.talk(string(context[:8]))
}

func (p *peer) take(kind byte, body []byte) error {
	switch kind {
	case request:
		answer, err := p.prove(body)
		if err != nil {
			return err
		}
		return p.message(proof, answer)
	case proof:
		passport, err := p.check(body)
		if err != nil {
			return err
		}
		names := p.state.PeerCertificates[0].URIs
		fmt.Println("peer", names[0], "passport octets", passport)
		p.accepted = true
		return p.message(decision, []byte{0})
	case decision:
		if body[0] != 0 {
			return fmt.Errorf("refused with class %d", body[0])
		}
		p.let = true
		return nil
	}
	return fmt.Errorf("message of kind %d", kind)
}

func (p *peer) talk(word string) error {
	line := []byte(fmt.Sprintf("%x", word))
	if p.client {
		if err := p.write(frameData, line); err != nil {
			return err
		}
		if err := p.write(frameEnd, nil); err != nil {
			return err
		}
	}
	var heard []byte
	for {
		kind, data, err := p.frame()
		if err != nil {
			return err
		}
		if kind == frameEnd {
			break
		}
		heard = append(heard, data...)
		if !p.client {
			if err := p.write(frameData, data); err != nil {
				return err
			}
		}
	}
	if p.client && !bytes.Equal(heard, line) {
		return fmt.Errorf("heard %q, not %q", heard, line)
	}
	fmt.Println("heard", len(heard), "octets")
	if !p.client {
		return p.write(frameEnd, nil)
	}
	return nil
}

// Exported Authenticators (RFC 9261).

func (p *peer) hash() func() hash.Hash {
	if p.state.CipherSuite == tls.TLS_AES_256_GCM_SHA384 {
		return sha512.New384
	}
	return sha256.New
}

func (p *peer) digest(parts ...[]byte) []byte {
	h := p.hash()()
	for _, part := range parts {
		h.Write(part)
	}
	return h.Sum(nil)
}

func (p *peer) keys(client bool) (context, finished []byte, err error) {
	side := map[bool]string{true: "client", false: "server"}[client]
	size := p.hash()().Size()
	context, err = p.state.ExportKeyingMaterial("EXPORTER-"+side+" authenticator handshake context", []byte{}, size)
	if err != nil {
		return nil, nil, err
	}
	finished, err = p.state.ExportKeyingMaterial("EXPORTER-"+side+" authenticator finished key", []byte{}, size)
	return context, finished, err
}

func vector(size int, data []byte) []byte {
	length := make([]byte, 8)
	binary.BigEndian.PutUint64(length, uint64(len(data)))
	return append(length[8-size:], data...)
}

func handshake(kind byte, body []byte) []byte {
	return append([]byte{kind}, vector(3, body)...)
}

func extension(kind uint16, data []byte) []byte {
	return append([]byte{byte(kind >> 8), byte(kind)}, vector(2, data)...)
}

func (p *peer) makeRequest(context []byte) []byte {
	block := extension(13, vector(2, []byte{ecdsaSha256 >> 8, ecdsaSha256 & 0xFF}))
	block = append(block, extension(extCmw, nil)...)
	block = append(block, extension(extAccepts, accepts)...)
	kind := byte(13)
	if p.client {
		kind = 17
	}
	return handshake(kind, append(vector(1, context), vector(2, block)...))
}

func signed(transcript []byte) []byte {
	text := append(bytes.Repeat([]byte{0x20}, 64), "Exported Authenticator\x00"...)
	return append(text, transcript...)
}

func (p *peer) prove(asked []byte) ([]byte, error) {
	if len(asked) < 5 || len(asked) < 5+int(asked[4]) {
		return nil, errors.New("a short request")
	}
	context := asked[5 : 5+int(asked[4])]
	base, finishedKey, err := p.keys(p.client)
	if err != nil {
		return nil, err
	}
	// [media type, passport, indicator of Attestation Results]
	cmw := append([]byte{0x83, 0x73}, "application/eat+jwt"...)
	cmw = append(cmw, 0x59)
	cmw = append(cmw, vector(2, p.passport)...)
	cmw = append(cmw, 8)
	entry := append(vector(3, p.leaf), vector(2, extension(extCmw, cmw))...)
	certificate := handshake(11, append(vector(1, context), vector(3, entry)...))
	sum := sha256.Sum256(signed(p.digest(base, asked, certificate)))
	signature, err := p.key.Sign(rand.Reader, sum[:], crypto.SHA256)
	if err != nil {
		return nil, err
	}
	verify := handshake(15, append([]byte{ecdsaSha256 >> 8, ecdsaSha256 & 0xFF}, vector(2, signature)...))
	mac := hmac.New(p.hash(), finishedKey)
	mac.Write(p.digest(base, asked, certificate, verify))
	return bytes.Join([][]byte{certificate, verify, handshake(20, mac.Sum(nil))}, nil), nil
}

type reader struct {
	data []byte
	err  error
}

func (r *reader) vector(size int) []byte {
	if r.err != nil || len(r.data) < size {
		r.err = io.ErrUnexpectedEOF
		return nil
	}
	length := 0
	for _, octet := range r.data[:size] {
		length = length<<8 | int(octet)
	}
	if len(r.data) < size+length {
		r.err = io.ErrUnexpectedEOF
		return nil
	}
	part := r.data[size : size+length]
	r.data = r.data[size+length:]
	return part
}

// check validates the peer's authenticator and returns the length of the passport in it.
func (p *peer) check(data []byte) (int, error) {
	base, finishedKey, err := p.keys(!p.client)
	if err != nil {
		return 0, err
	}
	var bodies, whole [][]byte
	rest := data
	for _, kind := range []byte{11, 15, 20} {
		if len(rest) < 4 || rest[0] != kind {
			return 0, fmt.Errorf("no message of type %d", kind)
		}
		r := &reader{data: rest[1:]}
		bodies = append(bodies, r.vector(3))
		if r.err != nil {
			return 0, r.err
		}
		whole = append(whole, rest[:len(rest)-len(r.data)])
		rest = r.data
	}
	if len(rest) != 0 {
		return 0, errors.New("octets follow")
	}
	r := &reader{data: bodies[0]}
	context, entries := r.vector(1), &reader{data: r.vector(3)}
	leaf, block := entries.vector(3), &reader{data: entries.vector(2)}
	if r.err != nil || entries.err != nil || !bytes.Equal(context, p.asked[5:5+int(p.asked[4])]) {
		return 0, errors.New("it answers another request")
	}
	if len(block.data) < 2 || binary.BigEndian.Uint16(block.data) != extCmw {
		return 0, errors.New("no cmw_attestation")
	}
	block.data = block.data[2:]
	cmw := block.vector(2)
	if block.err != nil {
		return 0, block.err
	}
	if !bytes.Equal(leaf, p.state.PeerCertificates[0].Raw) {
		return 0, errors.New("another certificate than in TLS")
	}
	key, ok := p.state.PeerCertificates[0].PublicKey.(*ecdsa.PublicKey)
	signature := &reader{data: bodies[1][2:]}
	sum := sha256.Sum256(signed(p.digest(base, p.asked, whole[0])))
	if !ok || !ecdsa.VerifyASN1(key, sum[:], signature.vector(2)) {
		return 0, errors.New("the signature does not verify")
	}
	mac := hmac.New(p.hash(), finishedKey)
	mac.Write(p.digest(base, p.asked, whole[0], whole[1]))
	if !hmac.Equal(mac.Sum(nil), bodies[2]) {
		return 0, errors.New("Finished does not match")
	}
	return len(cmw), nil
}

// Frames and messages of troth.tls.

func (p *peer) write(kind byte, payload []byte) error {
	_, err := p.conn.Write(append([]byte{kind}, vector(3, payload)...))
	return err
}

func (p *peer) message(kind byte, body []byte) error {
	return p.write(frameMessage, append([]byte{kind, 0, 0}, body...))
}

func (p *peer) frame() (byte, []byte, error) {
	head := make([]byte, 4)
	if _, err := io.ReadFull(p.conn, head); err != nil {
		return 0, nil, err
	}
	size := int(head[1])<<16 | int(head[2])<<8 | int(head[3])
	payload := make([]byte, size)
	_, err := io.ReadFull(p.conn, payload)
	return head[0], payload, err
}
