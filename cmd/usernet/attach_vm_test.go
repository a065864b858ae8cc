package main

import (
	"strings"
	"testing"
)

func TestOneOfTheVirtualMachinesSocketsIsNeeded(t *testing.T) {
	c := attachCommand()
	c.SetArgs([]string{"--vm-socket", "/a", "--vm-connect", "/b"})
	c.SilenceErrors, c.SilenceUsage = true, true
	if err := c.Execute(); err == nil || !strings.Contains(err.Error(), "exclude each other") {
		t.Error(err)
	}
}
