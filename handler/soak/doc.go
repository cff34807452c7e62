// Package soak plays the whole program against the simulated systems, in simulated time and in an order that a seed
// decides: the real engine, tenant, connectors and ledger in a testing/synctest bubble, with everything that can go
// wrong on the way between them. All of it is tests.
//
// A run parks before every call, every operation of the ledger, every new goroutine and after every sleep; a driver
// waits until all are parked and lets the seed pick who goes on and what befalls it. So a seed reproduces a run.
package soak
