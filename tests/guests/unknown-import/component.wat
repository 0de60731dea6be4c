;; Imports what no host should offer.
;;
;; Must come of it: refused at load, naming the import.
(component
  (import "evil:corp/shell@1.0.0" (instance (export "run" (func (param "command" string))))))
