package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"unicode"

	"github.com/spf13/cobra"
)

func networkPolicy() *cobra.Command {
	var file string
	var clear bool
	c := &cobra.Command{
		Use:   "policy NETWORK [RULE...]",
		Short: "Show or change which containers of a network reach each other",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := client()
			if err != nil {
				return err
			}
			if len(args) == 1 && file == "" && !clear {
				n, err := cl.Network(c.Context(), args[0])
				if err != nil {
					return err
				}
				p := n.Options["usernet.policy"]
				if strings.ContainsFunc(p, unicode.IsControl) {
					p = strconv.Quote(p) // another host's, which is not to give orders to the terminal
				}
				if p != "" {
					fmt.Println(strings.ReplaceAll(p, "; ", "\n"))
				}
				return nil
			}
			rules, err := policyText(args[1:], file, clear)
			if err != nil {
				return err
			}
			return cl.SetNetworkPolicy(c.Context(), args[0], rules)
		},
	}
	c.Flags().StringVarP(&file, "file", "f", "", "file with the rules, one on each line, in the place of those before")
	c.Flags().BoolVar(&clear, "clear", false, "all containers reach each other")
	return c
}

// policyText is the rules that were given in one of three ways.
func policyText(rules []string, file string, clear bool) (string, error) {
	ways := 0
	for _, given := range []bool{len(rules) > 0, file != "", clear} {
		if given {
			ways++
		}
	}
	switch {
	case ways > 1:
		return "", errors.New("give rules, --file or --clear: one of them")
	case file == "":
		return strings.Join(rules, ";"), nil
	}
	text, err := os.ReadFile(file)
	if err == nil && len(strings.TrimSpace(string(text))) == 0 {
		err = fmt.Errorf("%s has no rules: give --clear to remove those that there are", file)
	}
	return string(text), err
}
