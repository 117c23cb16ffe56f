// SPDX-License-Identifier: Apache-2.0

// A client of the SPIFFE Workload API by go-spiffe, used as its users do.
//
//	client svid            print the X509-SVID's ID and the trust domains of the bundles
//	client jwt AUDIENCE    print the ID of a JWT-SVID that the API also validates
//	client serve ID        serve one TLS connection to the peer ID alone; print the address first
//	client dial ADDRESS ID connect to the peer ID alone; print what it says
package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"sort"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	switch args[0] {
	case "svid":
		return svid(ctx)
	case "jwt":
		return jwt(ctx, args[1])
	case "serve":
		return serve(ctx, args[1])
	case "dial":
		return dial(ctx, args[1], args[2])
	}
	return fmt.Errorf("unknown command %q", args[0])
}

func svid(ctx context.Context) error {
	found, err := workloadapi.FetchX509Context(ctx)
	for err != nil {
		// Nobody yet: the specification has a client ask again.
		select {
		case <-ctx.Done():
			return err
		case <-time.After(200 * time.Millisecond):
		}
		found, err = workloadapi.FetchX509Context(ctx)
	}
	var domains []string
	for _, bundle := range found.Bundles.Bundles() {
		domains = append(domains, bundle.TrustDomain().Name())
	}
	sort.Strings(domains)
	fmt.Println(found.DefaultSVID().ID, strings.Join(domains, " "))
	return nil
}

func jwt(ctx context.Context, audience string) error {
	fetched, err := workloadapi.FetchJWTSVID(ctx, jwtsvid.Params{Audience: audience})
	if err != nil {
		return err
	}
	checked, err := workloadapi.ValidateJWTSVID(ctx, fetched.Marshal(), audience)
	if err != nil {
		return err
	}
	fmt.Println(checked.ID)
	return nil
}

func serve(ctx context.Context, peer string) error {
	id, err := spiffeid.FromString(peer)
	if err != nil {
		return err
	}
	listener, err := spiffetls.Listen(ctx, "tcp", "127.0.0.1:0", tlsconfig.AuthorizeID(id))
	if err != nil {
		return err
	}
	defer listener.Close()
	fmt.Println(listener.Addr())
	conn, err := listener.Accept()
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := bufio.NewReader(conn).ReadString('\n'); err != nil {
		return err
	}
	_, err = fmt.Fprintln(conn, "hello from the server")
	return err
}

func dial(ctx context.Context, address, peer string) error {
	id, err := spiffeid.FromString(peer)
	if err != nil {
		return err
	}
	conn, err := spiffetls.Dial(ctx, "tcp", address, tlsconfig.AuthorizeID(id))
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := fmt.Fprintln(conn, "hello"); err != nil {
		return err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return err
	}
	fmt.Print(line)
	return nil
}
